"""What clients of Open311 that we did not write make of a node; one JSON object for what they found.

open311.py georeport ENDPOINT FORMAT CODE ID            PyPI's georeport: it only reads
open311.py civicbot ENDPOINT CODE [KEY]                 PyPI's civicbot: files a request, and reads
"""
import json
import sys

client, endpoint, *rest = sys.argv[1:]


def refused(ask):
    """The status that a client's own error names."""
    try:
        ask()
    except Exception as error:
        status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
        return status or type(error).__name__
    return None


if client == "georeport":
    from georeport import GeoReport

    form, code, case = rest
    city = GeoReport(endpoint, output_format=form)
    found = {
        "services": city.get_service_list(),
        "definition": city.get_service_definition(code),
        "requests": refused(city.get_service_requests) or city.get_service_requests(status="open"),
    }
    found["request"] = refused(lambda: city.get_service_request(case)) or city.get_service_request(case)
elif client == "civicbot":
    from civicbot.http import HttpTransport, RateLimiter
    from civicbot.open311 import Open311Client, ValidationError
    from civicbot.registry import Endpoint

    code, key = rest[0], rest[1] if len(rest) > 1 else None
    city = Endpoint("c", "C", endpoint, write=True, api_key_required_for_write=key is not None)
    # Half a second between two questions is for other people's servers.
    bot = Open311Client(city, HttpTransport(rate_limiter=RateLimiter(min_interval=0)))
    wanted = {"lat": 30.698, "lng": 103.8368, "description": "三号门堆了垃圾", "phone": "13900000000"}
    sure = {"dry_run": False, "confirm": "SEND", "api_key": key, "validate_remote": True}
    # It asks for the definition first, and tells a request that lacks an answer without sending it.
    try:
        bot.create_request(code, **sure, **wanted)
        lacking = None
    except ValidationError as error:
        lacking = error.problems
    filed = bot.create_request(code, **sure, **wanted, attributes={"amount": "一袋", "kinds": ["a", "b"]})
    case = filed.response[0]["service_request_id"]
    found = {
        "services": bot.list_services(),
        "definition": bot.get_service_definition(code),
        "lacking": lacking,
        "filed": filed.response,
        "without_key": refused(lambda: bot.create_request(
            code, **{**sure, "api_key": key and "wrong"}, **wanted, attributes={"amount": "一袋"})),
        "request": refused(lambda: bot.get_request(case)) or bot.get_request(case),
        "requests": refused(bot.list_requests) or bot.list_requests(status="open", page_size=10),
        "token": refused(lambda: bot.get_token(case)) or bot.get_token(case),
    }
json.dump(found, sys.stdout)
