"""The saga's table as the judge knows it: which event leads from which stage to which.

It is written apart from the saga, so that the two judge each other.
"""

ENTRY = "RESERVING"
ENDS = frozenset({"REJECTED", "COMPLETED", "FAILED", "CANCELED"})

_TABLE = {
    "RESERVING": {
        "Reserved": "READY REFUNDING",
        "ReserveRefused": "REJECTED",
        "CreditsContradicted": "PARKED",
        "EffectFailed": "PARKED",
        "Poisoned": "PARKED",
    },
    "READY": {
        "SubmitClaimed": "SUBMITTING",
        "CancelRequested": "REFUNDING",
        "Woken": "REFUNDING",
        "EffectFailed": "REFUNDING",
        "Poisoned": "PARKED",
    },
    "SUBMITTING": {
        # What was lost may have ended before it was found.
        "Submitted": "RUNNING CANCELING ARCHIVING REFUNDING READY",
        "SubmitRefused": "REFUNDING",
        "SubmitDeferred": "READY REFUNDING",
        "SubmitUnknown": "REFUNDING",
        "SubmitAbsent": "READY REFUNDING",
        "CancelRequested": "REFUNDING",
        "Woken": "REFUNDING",
        "EffectFailed": "REFUNDING",
        "Poisoned": "PARKED",
    },
    "RUNNING": {
        "PredictionSeen": "ARCHIVING REFUNDING READY CANCELING",
        "PredictionMissing": "REFUNDING CANCELING",
        "CancelRequested": "CANCELING",
        "EffectFailed": "CANCELING PARKED",
        "Poisoned": "PARKED",
    },
    "CANCELING": {
        "PredictionSeen": "ARCHIVING REFUNDING COMMITTING",
        "PredictionMissing": "REFUNDING",
        "EffectFailed": "REFUNDING PARKED",
        "Poisoned": "PARKED",
    },
    "ARCHIVING": {
        "OutputStored": "COMMITTING",
        "OutputRenewed": "REFUNDING",
        "OutputLost": "REFUNDING",
        "EffectFailed": "REFUNDING PARKED",
        "Poisoned": "PARKED",
    },
    "COMMITTING": {
        "Committed": "COMPLETED CANCELED",
        "CommitExpired": "COMPLETED CANCELED",
        "CreditsContradicted": "PARKED",
        "EffectFailed": "PARKED",
        "Poisoned": "PARKED",
    },
    "REFUNDING": {
        "Refunded": "FAILED CANCELED",
        "CreditsContradicted": "PARKED",
        "EffectFailed": "PARKED",
        "Poisoned": "PARKED",
    },
    "PARKED": {
        "Resumed": "RESERVING READY SUBMITTING RUNNING CANCELING ARCHIVING COMMITTING REFUNDING",
        "PredictionSeen": "ARCHIVING REFUNDING COMMITTING READY",
        "Committed": "COMPLETED CANCELED",
        "CommitExpired": "COMPLETED CANCELED",
        "Refunded": "FAILED CANCELED",
    },
}

MOVES = frozenset(
    (stage, event, following)
    for stage, events in _TABLE.items()
    for event, stages in events.items()
    for following in stages.split()
)
"""Stage, event and the stage that may follow."""
