-- Keys no longer go with their tasks, so nothing looks them up by task.
DROP INDEX idempotency_keys_by_task;
