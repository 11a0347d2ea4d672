-- One row per stay, hour and variable of a batch of stays that has a value: this; and one per variable, whose `row` is
-- null, that counts what happened to its chartings.
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
-- Materialized, and each aggregate given its own rows: in one GROUP BY all would pay for the texts, lists and counts of all.
judged as materialized (
    select
        row, hour::tinyint as hour, variable, aggregate, charttime, value, dropped, unknown, sum_at_least,
        coalesce(value between low and high, false) as used
    from charted
),
hours as (
    select row, hour, variable, arg_max(value, {'at': charttime, 'value': value}) as value
    from judged where used and aggregate = 'last' group by row, hour, variable
    union all
    -- Sorted: floating-point addition in another order gives other last digits.
    select row, hour, variable, list_avg(list_sort(list(value)))
    from judged where used and aggregate = 'mean' group by row, hour, variable
    union all
    select row, hour, variable, greatest(list_sum(list_sort(list(value))), any_value(sum_at_least))
    from judged where used and aggregate = 'sum' group by row, hour, variable
)
select *, 0 as rows, 0 as used, 0 as dropped, 0 as unknown, 0 as empty, 0 as out_of_range from hours
union all
select
    null, null, variable, null,
    count(*),
    count(*) filter (used),
    count(*) filter (dropped),
    count(*) filter (unknown),
    count(*) filter (value is null and not dropped and not unknown),
    count(*) filter (value is not null and not used)
from judged
group by variable
