"""How often each rule of `real_input.rs` fires over a file of hourly readings: from the file alone.

    air.py FILE

Prints one JSON object. `told` is when: what time alone does is done before the reading of that number comes.
Shares no code with citybrain.
"""

import csv
import json
import sys
from datetime import datetime, timedelta

FOUL, CLEAN = 150, 100
LONG, FOR = 115, timedelta(hours=6)
SILENT = timedelta(hours=3)
LOW, LATELY = 45, timedelta(hours=3)


def main():
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        rows = [
            (r["No"], datetime(int(r["year"]), int(r["month"]), int(r["day"]), int(r["hour"])), r["PM_US Post"].strip())
            for r in csv.DictReader(file)
        ]
    readings = [(no, at, None if text in ("", "NA") else float(text)) for no, at, text in rows]
    foul = held = silent = clean = 0
    seen, told = [], []
    is_foul, since, is_held = False, None, False
    last, is_silent = None, False
    for no, at, value in readings:
        # What is due by now comes before what is said now.
        if since is not None and not is_held and at >= since + FOR:
            held, is_held = held + 1, True
            told.append(["foul-for-long", "fired", no])
        if last is not None and not is_silent and at >= last + SILENT:
            silent, is_silent = silent + 1, True
            told.append(["silent", "fired", no])
        if value is None:
            continue
        if is_silent:
            told.append(["silent", "over", no])
        last, is_silent = at, False
        seen = [(when, seen_then) for when, seen_then in seen if when > at - LATELY] + [(at, value)]
        clean += min(seen_then for _, seen_then in seen) < LOW
        if not is_foul and value > FOUL:
            foul, is_foul = foul + 1, True
        elif is_foul and value < CLEAN:
            is_foul = False
        if value > LONG:
            since = at if since is None else since
        else:
            if is_held:
                told.append(["foul-for-long", "over", no])
            since, is_held = None, False
    holes = sum(1 for _, _, value in readings if value is None)
    said = {"readings": len(readings), "holes": holes, "foul": foul, "is_foul": is_foul}
    print(json.dumps({**said, "foul-for-long": held, "silent": silent, "clean": clean, "told": told}))


main()
