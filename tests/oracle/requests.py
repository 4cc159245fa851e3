"""What must be true of a file of service requests at every node of a tree: counted from the file alone.

    requests.py FILE < ADDRESSES

ADDRESSES: the tree's nodes, one a line. Which city it is, the file's header says. Prints one JSON
object: for each node what it and all below it have. Shares no code with citybrain.
"""

import csv
import json
import math
import re
import sys
import time as clock
from collections import Counter, defaultdict
from datetime import datetime

try:
    from zoneinfo import ZoneInfo

    ZONES = {name: ZoneInfo(name) for name in ("America/Los_Angeles", "America/New_York")}
except Exception as e:  # an old Python, or no time zone database
    print(f"no time zones here: {e}", file=sys.stderr)
    sys.exit(77)


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.strip().lower()).strip("-")


def time(text, form, zone):
    text = text.strip()
    return datetime.strptime(text, form).replace(tzinfo=ZONES[zone]).timestamp() if text else None


def los_angeles(row):
    at = lambda name: time(row[name], "%m/%d/%Y %I:%M:%S %p", "America/Los_Angeles")
    return {
        "place": [
            (slug(row["APC"]), "other-apcs"),
            (slug(row["NCName"]), "other-councils"),
            ("zip-" + slug(row["ZipCode"]) if slug(row["ZipCode"]) else "", "other-zips"),
        ],
        "category": slug(row["RequestType"]),
        "department": row["Owner"],
        "channel": row["RequestSource"],
        "status": {"Closed": "closed", "Cancelled": "withdrawn", "Referred Out": "rejected"}[row["Status"]],
        "opened": at("CreatedDate"),
        "closed": at("ClosedDate"),
        "due": None,
        "flag": None,
        "number": row["SRNumber"],
    }


def boston(row):
    at = lambda name: time(row[name], "%Y-%m-%d %H:%M:%S", "America/New_York")
    ward = re.sub(r"\D", "", row["ward"]).lstrip("0")
    return {
        "place": [
            (slug(row["neighborhood"]), "other-parts"),
            ("ward-" + ward if ward else "", "other-wards"),
            ("precinct-" + slug(row["precinct"]) if slug(row["precinct"]) else "", "other-precincts"),
        ],
        "category": slug(row["type"]),
        "department": row["department"],
        "channel": row["source"],
        "status": {"Closed": "closed", "Open": "dispatched"}[row["case_status"]],
        "opened": at("open_dt"),
        "closed": at("closed_dt"),
        "due": at("target_dt"),
        # Only where both times exist does the city's flag compare them.
        "flag": row["ontime"] if row["closed_dt"].strip() and row["target_dt"].strip() else None,
        "own_flag": row["ontime"],
        "number": row["case_enquiry_id"],
    }


def home(row, nodes, city):
    """The lowest node that stands for the row's place."""
    at = city
    for own, rest in row["place"]:
        below = [f"{at}/{own}"] if own else []
        below = [node for node in below + [f"{at}/{rest}"] if node in nodes]
        if not below:
            break
        at = below[0]
    return at


def spread(seconds):
    seconds = sorted(seconds)
    if not seconds:
        return None
    rank = lambda share: seconds[max(math.ceil(share * len(seconds)), 1) - 1]
    return {"p50_s": rank(0.5), "p90_s": rank(0.9), "p99_s": rank(0.99), "max_s": seconds[-1], "sum_s": sum(seconds)}


def facts(rows, node):
    closed = [r for r in rows if r["status"] == "closed"]
    # A city's own clock sometimes says that a request was closed before it was made.
    took = lambda rs: spread([max(int(r["closed"] - r["opened"]), 0) for r in rs])
    of = lambda name: {key: {"cases": n} for key, n in Counter(r[name] for r in rows).items()}
    by_category = of("category")
    for key, entry in by_category.items():
        entry["took"] = took([r for r in closed if r["category"] == key])
    child = Counter(r["home"] if r["home"] == node else "/".join(r["home"].split("/")[: node.count("/") + 2]) for r in rows)
    limited = [r for r in rows if r["due"] is not None]
    return {
        "cases": len(rows),
        "took": took(closed),
        "category": by_category,
        "department": of("department"),
        "channel": of("channel"),
        "status": of("status"),
        "child": {key: {"cases": n} for key, n in child.items()},
        "node": {key: {"cases": n} for key, n in Counter(r["home"] for r in rows).items()},
        "with_limit": len(limited),
        "in_time": sum(1 for r in limited if r["closed"] is not None and r["closed"] <= r["due"]),
        "late": sum(1 for r in limited if r["closed"] is not None and r["closed"] > r["due"]),
        "overdue": sum(1 for r in limited if r["closed"] is None and r["due"] < clock.time()),
        # Each row's flag, by its number there.
        "rows": {r["number"]: r.get("own_flag") for r in rows},
        "flags": dict(Counter(r["flag"] for r in rows if r["flag"] is not None)),
    }


def main():
    nodes = [line.strip() for line in sys.stdin if line.strip()]
    city = min(nodes, key=len)
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        read = los_angeles if "SRNumber" in reader.fieldnames else boston
        rows = [read(row) for row in reader]
    at = defaultdict(list)
    for row in rows:
        row["home"] = home(row, set(nodes), city)
        node = row["home"]
        while node:
            at[node].append(row)
            node = node.rpartition("/")[0]
    print(json.dumps({node: facts(at[node], node) for node in nodes}))


main()
