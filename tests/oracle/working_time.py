"""When limits in working time pass: second by second, from the calendar alone.

    working_time.py DAYS UTC_OFFSET_HOURS WORKDAYS SPAN... < QUESTIONS

DAYS: a days file (`2026-10-01..2026-10-07,holiday`, `2026-10-10,makeup`). WORKDAYS: such as `mon,tue`. SPAN:
`09:00-12:00`. QUESTIONS: `START LIMIT`, one a line, the start as RFC 3339 in UTC with microseconds, the limit
as `4wh`, `2wd`, `90d`. Prints a moment for each, µs since 1970. Shares no code with citybrain.
"""

import sys
from datetime import date, datetime, time, timedelta, timezone

WEEK = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def exceptions(path):
    found = {}
    for word in ("holiday", "makeup"):  # a made-up day is worked in spite of a holiday
        for line in open(path, encoding="utf-8"):
            cells = line.strip().split(",")
            if len(cells) < 2 or cells[0].startswith("#") or cells[1] != word:
                continue
            first, _, last = cells[0].partition("..")
            first, last = date.fromisoformat(first), date.fromisoformat(last or first)
            for n in range((last - first).days + 1):
                found[first + timedelta(days=n)] = word == "makeup"
    return found


def main():
    days, offset, week, spans = exceptions(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:]
    zone = timezone(timedelta(hours=offset))
    clock = lambda text: timedelta(hours=int(text[:2]), minutes=int(text[3:]))
    spans = [tuple(clock(t) for t in span.split("-")) for span in spans]
    of_day = sum(((end - begin) for begin, end in spans), timedelta())

    def works(day):
        return days.get(day, WEEK[day.weekday()] in week)

    def due(start, limit):
        amount, unit = int(limit.rstrip("smhdw")), limit.lstrip("0123456789")
        length = {
            "wh": timedelta(hours=1),
            "wd": of_day,
            "h": timedelta(hours=1),
            "d": timedelta(days=1),
        }[unit] * amount
        if unit in ("h", "d"):
            return start + length
        # The working time of each day from the start on, taken away from what is left.
        day = start.astimezone(zone).date()
        while True:
            midnight = datetime.combine(day, time(), zone)
            for begin, end in spans if works(day) else []:
                begin, end = max(midnight + begin, start), midnight + end
                if begin >= end:
                    continue
                if length <= end - begin:
                    return begin + length
                length -= end - begin
            day += timedelta(days=1)

    for line in sys.stdin:
        start, limit = line.split()
        start = datetime.strptime(start, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        print((due(start, limit) - EPOCH) // timedelta(microseconds=1))


main()
