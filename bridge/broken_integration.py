"""The one rule by which the bridge raises a severity: Huntress says that it cannot send incident reports to a PSA.

Whoever still relies on the vendor's own integration hears of no incident then, whatever severity the source gives such
a platform action. The rule is made from the only example in the vendor's document (GET /v1/platform_actions): "The
Huntress security platform is unable to send incident reports to your PSA system and we need you to reconfigure the
integration."
"""

from __future__ import annotations

import re

from bridge.models import Kind

#: The severity that such a platform action is given, for queue, routing and priority.
RAISED_TO = "critical"

_WHERE_TICKETS_GO = re.compile(
    r"\b(psa|ticket(s|ing)?|connectwise(?! (automate|control|rmm))|autotask|halo ?psa|kaseya bms|syncro|servicenow)\b"
)
_HANDING_OVER = re.compile(r"\b(send(ing)?|sent|deliver(y|ed|ing)?|creat(e|ed|ing)|post(ed)?|push(ed)?|sync(ed)?)\b")
_TROUBLE = re.compile(
    r"\b(unable|cannot|can not|can.t|could not|couldn.t|not able|no longer|fail(s|ed|ing|ure)?|errors?|"
    r"broken|disconnected|disabled|expired|invalid|revoked|unauthorized|misconfigured|reconfigure|reconnect|"
    r"reauthori[sz]e|re-authori[sz]e)\b"
)


def is_broken_integration(kind: Kind, *words: str) -> bool:
    """Does a platform action say, in its subject, type or subtype, that Huntress cannot reach the ticket system?

    It names trouble, and either a ticket system or the handing over of incident reports.
    """
    said = " ".join(words).lower().replace("_", " ")
    handing_over = "incident report" in said and _HANDING_OVER.search(said)
    return (
        kind is Kind.PLATFORM_ACTION
        and _TROUBLE.search(said) is not None
        and bool(_WHERE_TICKETS_GO.search(said) or handing_over)
    )
