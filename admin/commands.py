"""The commands: where each lives, and what the first page says of it. Nothing is imported before it is called.

Importing every command takes several times longer than to print a page of help; a test compares the words
with those of the commands themselves.
"""

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "ids")
"""How rows can be printed."""

COMMANDS: dict[str, tuple[str, str]] = {
    "list-jobs": ("jobs:list_jobs", "List jobs by id"),
    "show-job": ("jobs:show_job", "Show one job with its history"),
    "explain": ("jobs:explain", "Say why a job does not run, and what to do"),
    "enqueue": ("jobs:enqueue", "Add a job, or one for each line of stdin, and print the ids"),
    "cancel": ("jobs:cancel", "Call pending or running jobs off"),
    "resubmit": ("jobs:resubmit", "Give failed or cancelled jobs a new budget of attempts"),
    "mark-failed": ("jobs:mark_failed", "Give pending or running jobs up"),
    "assign-job": ("jobs:assign_job", "Reserve a job for one consumer"),
    "release": ("jobs:release", "Take running jobs back from their consumers, which are refused from then on"),
    "edit-job": ("jobs:edit_job", "Change when waiting jobs run, and in which order"),
    "delete-job": ("jobs:delete_job", "Delete jobs with their history, and print what they were"),
    "purge": ("bulk:purge", "Delete old jobs that are over"),
    "delete-db-jobs": (
        "bulk:delete_db_jobs", "Delete all job records, or those that filters match, but not of running jobs",
    ),
    "delete-job-files": ("bulk:delete_job_files", "Delete the files of jobs that are over"),
    "stats": ("system:stats", "Count jobs by status, and tell how fast they go, by queue and task"),
    "errors": ("system:errors", "Group failed jobs by error, queue and task, the most frequent first"),
    "monitor-activity": ("monitor:monitor_activity", "Watch the queue until Ctrl-C"),
    "backup": ("keeping:backup", "Copy a SQLite queue to a new file while everybody goes on"),
    "restore": ("keeping:restore", "Put a backup in the place of all that the queue holds"),
    "up": ("up:up", "Start producer, consumers and maintenance under supervisord, and watch until Ctrl-C"),
    "doctor": ("system:run_doctor", "Check everything that decides whether jobs are safe and move"),
    "consumer": ("processes:consumer", "Perform jobs until told to stop; its own options"),
    "producer": ("processes:producer", "Make job files, one every INTERVAL_TIME seconds; its own options"),
    "tui": ("processes:tui", "Run the queue on a full screen; its own options"),
    "ops": ("processes:ops", "Show the queue in a browser, on this machine only unless the settings say more"),
    "queues": ("queues:app", "Look at queues, pause and drain them"),
    "consumers": ("consumers:app", "Look at consumers, quiet and stop them"),
    "workers": ("workers:app", "Add, stop and list supervised consumers"),
    "audit": ("auditlog:app", "Read what was decided, by whom"),
    "batches": ("batches:app", "Look at batch files, and set them right"),
    "shards": ("shards:app", "Look at sharded requests"),
    "config": ("system:config", "Look at the settings"),
    "db": ("keeping:db", "Make, update or check the database"),
}  # fmt: skip
"""By name: the module and what it holds there, and the first words of its help."""

PASSED_ON = frozenset({"consumer", "producer", "tui"})
"""Those that become another program, which has options of its own."""
