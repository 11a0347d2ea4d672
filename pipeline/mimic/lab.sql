-- hosp/labevents: results of the needed itemids, a row for each ICU stay that the time from draw to result touches.
-- Joined on hadm_id; where that is null, on subject and time. Which of the two times counts is decided downstream.
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
results as (
    select
        subject_id, hadm_id, itemid, charttime, storetime,
        -- greatest() looks past nulls; a result is not there before the blood is drawn
        greatest(charttime, storetime) as available,
        -- + 0.0: no negative zero, whose place in the order would be a matter of chance
        coalesce(valuenum, case when isfinite(try_cast(value as double)) then try_cast(value as double) + 0.0 end)
            as number,
        -- beyond what the method can tell: "<0.01", "GREATER THAN 70000." as value or, mostly, at the head of the comments.
        -- The bound stands for the value: half of all troponins are below it, and left out they would all be high.
        case when valuenum is null then
            try_cast(regexp_extract(
                upper(case when value is null or value = '___' then comments else value end),
                '^(?:[<>]=?|(?:LESS|GREATER) THAN)\s*(\d+(?:\.\d+)?|\.\d+)', 1
            ) as double)
        end as bound
    from source
    where itemid in (select itemid from needed)
),
joined as (
    select stay_id, charttime, available, itemid, coalesce(number, bound) as valuenum,
        results.hadm_id is null as unlinked,
        storetime is null as unstored,
        coalesce(storetime < charttime, false) as reversed,
        number is null as bounded,
        coalesce(charttime < left_before, false) as again,
        case
            when charttime is null then 'no charttime'
            when stay_id is null then 'in no ICU stay'
            when number is null and bound is null then 'no number'
        end as dropped
    from results
    left join stays
        on stays.subject_id = results.subject_id
        and stays.admission = coalesce(results.hadm_id, -1)
        and results.charttime < stays.outtime
        and results.available >= stays.intime
)
select
    * exclude (unlinked, unstored, reversed, bounded, again),
    case when dropped is null then [
        case when again then 'in a second stay' end,     -- counted once in `kept`
        case when unlinked then 'without hadm_id' end,
        case when unstored then 'without storetime' end,
        case when reversed then 'stored before drawn' end,
        case when bounded then 'a bound for a number' end
    ] end as noted
from joined
where dropped is null or not again
