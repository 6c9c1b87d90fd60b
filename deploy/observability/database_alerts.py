"""Alerts about the copies of databases that CloudNativePG keeps elsewhere: changes and backups."""

from deploy.observability.alerting import Alert, Case, Condition, Severity

__all__ = ["ALERTS"]

PAGE, TICKET = Severity.PAGE, Severity.TICKET

_FAILED = "cnpg_pg_stat_archiver_last_failed_time"
_ARCHIVED = "cnpg_pg_stat_archiver_last_archived_time"
_READY = 'cnpg_collector_pg_wal_archive_status{value="ready"}'
_BACKUP = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp"
_DATABASE = {"job": "credits-db"}


def _of_database(*, failed: str, archived: str, ready: str) -> dict[str, str]:
    return {
        f'{_FAILED}{{job="credits-db",instance="a"}}': failed,
        f'{_ARCHIVED}{{job="credits-db",instance="a"}}': archived,
        'cnpg_collector_pg_wal_archive_status{job="credits-db",instance="a",value="ready"}': ready,
        # A standby hands nothing on.
        'cnpg_collector_pg_wal_archive_status{job="credits-db",instance="b",value="ready"}': "0x60",
    }


ALERTS = (
    Alert(
        name="WalArchivingFails",
        job="",
        summary="Changes of a database do not reach the bucket of its backups.",
        conditions={
            # 2 of the 10 GiB after which PostgreSQL stops, in files of 16 MiB.
            PAGE: Condition(f"max by (job) ({_READY}) > 128", "5m"),
            TICKET: Condition(f"max by (job) ({_FAILED} - {_ARCHIVED}) > 0", "10m"),
        },
        cases=(
            Case(
                _of_database(failed="0+60x60", archived="60x60", ready="0+10x60"),
                "40m",
                (PAGE, TICKET),
                labels=(_DATABASE,),
            ),
            Case(
                _of_database(failed="0+60x60", archived="60x60", ready="0 1x60"),
                "40m",
                (TICKET,),
                labels=(_DATABASE,),
            ),
            # It does not fail, and does not end.
            Case(
                _of_database(failed="-1x60", archived="60x60", ready="0+10x60"),
                "40m",
                (PAGE,),
                labels=(_DATABASE,),
            ),
            # It failed once, and went on.
            Case(_of_database(failed="-1x5 300x55", archived="0+60x60", ready="0x5 2 0x55"), "40m"),
        ),
    ),
    Alert(
        name="BackupOld",
        job="",
        summary="A database has no backup of the last night.",
        conditions={
            # 0 before the first.
            TICKET: Condition(f"time() - max by (job) ({_BACKUP}) > 30 * 3600", "15m")
        },
        cases=(
            Case(
                {f'{_BACKUP}{{job="credits-db"}}': "-108000x120"},
                "100m",
                (TICKET,),
                labels=(_DATABASE,),
            ),
            Case({f'{_BACKUP}{{job="credits-db"}}': "-86400x120"}, "100m"),
        ),
    ),
)
