-- One row per stay, hour and variable of a batch of stays: the hour's value, and what happened to its chartings.
--   events (stay_id, charttime, itemid, text, number)   chart, output and lab rows, each at the time that counts
--   batch  (row, stay_id, intime)                       the stays asked for; row counts from 0
--   items  (variable, itemid, ...)                      variables.yaml, a row per variable and itemid
--   texts  (variable, itemid, text, code, known, dropped)   every text charted under those itemids
with charted as (
    select
        batch.row,
        events.charttime,
        -- to the second: date_diff('hour', ...) would count clock hours begun
        greatest((epoch_us(events.charttime) - epoch_us(batch.intime)) // 3_600_000_000, 0) as hour,
        items.variable, items.aggregate, items.low, items.high, items.sum_at_least,
        coalesce(texts.dropped, false) as dropped,
        coalesce(not texts.known, false) as unknown,
        case
            when texts.dropped then null
            when items.coded then texts.code
            -- to the variable's unit first, compared with the range afterwards
            when events.number > items.up_to then events.number
            else ((case when items.absolute then abs(events.number) else events.number end)
                  - items.subtract) * items.multiply / items.divide
        end as value
    from events
    join batch using (stay_id)
    join items using (itemid)
    left join texts on texts.variable = items.variable and texts.itemid = events.itemid and texts.text = events.text
    where epoch_us(events.charttime) >= epoch_us(batch.intime) - items.hours_before * 3_600_000_000
      and events.charttime < batch.intime + interval 48 hour
      and events.stay_id between $first and $last     -- lets the scan skip row groups: the files are sorted by stay_id
),
judged as (
    select *, coalesce(value between low and high, false) as used from charted
)
select
    row, hour, variable,
    -- Each aggregate sees its own rows alone: kept for all variables, the sums would sort every row. Sorted they must
    -- be: floating-point addition in another order gives other last digits.
    case when bool_or(used) then coalesce(
        arg_max(value, {'at': charttime, 'value': value}) filter (used and aggregate = 'last'),
        list_avg(list_sort(list(value) filter (used and aggregate = 'mean'))),
        greatest(list_sum(list_sort(list(value) filter (used and aggregate = 'sum'))), any_value(sum_at_least))
    ) end as value,
    count(*) as rows,
    count(*) filter (used) as used,
    count(*) filter (dropped) as dropped,
    count(*) filter (unknown) as unknown,
    count(*) filter (value is null and not dropped and not unknown) as empty,
    count(*) filter (value is not null and not used) as out_of_range
from judged
group by row, hour, variable
