-- hosp/labevents: results of the needed itemids, a row for each ICU stay that the time from draw to result touches.
-- Joined on hadm_id; where that is null, on subject and time. Which of the two times counts is decided downstream.
-- valuenum is in the item's unit: `other` is what a row names instead, to be converted or left out.
with stays as (
    -- left_before: when the last of the earlier stays that could have the same row ended
    select subject_id, hadm_id as admission, stay_id, intime, outtime,
        max(outtime) over (partition by subject_id, hadm_id order by intime, stay_id
                           rows between unbounded preceding and 1 preceding) as left_before
    from icustays
    union all
    select subject_id, -1, stay_id, intime, outtime,
        max(outtime) over (partition by subject_id order by intime, stay_id
                           rows between unbounded preceding and 1 preceding)
    from icustays
),
said as (
    -- the text counts where there is no number: '___' says nothing, the comments may
    select source.*, needed.unit as expected,
        case when valuenum is null then trimmed(value) end as text,
        case when valuenum is null then trimmed(comments) end as comment
    from source
    join needed using (itemid)
),
results as (
    select
        subject_id, hadm_id, itemid, charttime, storetime, valueuom, expected,
        -- greatest() looks past nulls; a result is not there before the blood is drawn
        greatest(charttime, storetime) as available,
        -- + 0.0: no negative zero, whose place in the order would be a matter of chance
        coalesce(valuenum, case when isfinite(number_in(text)) then number_in(text) + 0.0 end) as number,
        -- beyond what the method can tell: "<0.01", ">70,000" as value or, mostly, at the head of the comments. The bound
        -- stands for the value: half of all troponins are below it, and left out they would all be high. It is none
        -- where other words follow ("GREATER THAN 6 HOURS OLD"): than the end, a full stop, an asterisk, or a unit.
        case when valuenum is null then
            regexp_extract(
                upper(case when text is null or text = '___' then comment else text end),
                '^(?:[<>]=?|(?:LESS|GREATER) THAN)\s*(\d[\d,]*(?:\.\d+)?|\.\d+)\s*([^.*]*)(?:$|\*|\.(?:\D|$))',
                ['digits', 'unit']
            )
        end as told
    from said
),
named as (
    select *, number_in(told.digits) as bound,
        number is null and told.unit <> '' as worded,    -- what is said beside the bound counts, else valueuom
        case when worded then told.unit else valueuom end as stated,
        other_unit(stated, expected) as other
    from results
),
joined as (
    select
        stay_id, charttime, available, named.itemid,
        case when other is null then coalesce(number, bound)
             else (coalesce(number, bound) - subtract) * multiply / divide end as valuenum,
        named.hadm_id is null as unlinked,
        storetime is null as unstored,
        coalesce(storetime < charttime, false) as reversed,
        number is null as bounded,
        coalesce(charttime < left_before, false) as again,
        case when converted then unit_of(other, named.itemid) || ': converted' end as converted,
        case
            when charttime is null then 'no charttime'
            when stay_id is null then 'in no ICU stay'
            when number is null and (bound is null or (worded and other is not null and units.itemid is null))
                then 'no number'
            when other is not null and units.itemid is null then unit_of(other, named.itemid)
        end as dropped
    from named
    left join units on units.itemid = named.itemid and units.unit = other
    left join stays
        on stays.subject_id = named.subject_id
        and stays.admission = coalesce(named.hadm_id, -1)
        and named.charttime < stays.outtime
        and named.available >= stays.intime
)
select
    * exclude (unlinked, unstored, reversed, bounded, again, converted),
    case when dropped is null then [
        case when again then 'in a second stay' end,     -- counted once in `kept`
        case when unlinked then 'without hadm_id' end,
        case when unstored then 'without storetime' end,
        case when reversed then 'stored before drawn' end,
        case when bounded then 'a bound for a number' end,
        converted
    ] end as noted
from joined
where dropped is null or not again
