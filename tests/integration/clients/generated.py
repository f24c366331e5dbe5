"""What openapi-python-client makes of the OpenAPI document, used."""

import uuid

from generated import Client
from generated.api.service import task_types
from generated.api.tasks import cancel, get, list_, submit
from generated.models import ErrorBody, SubmitRequest, SubmitRequestParameters, TaskStatus
from generated.models import TaskInfo, TaskResponse

client = Client(base_url="http://localhost:8000", timeout=90)


def submitted(parameters: dict) -> TaskResponse | ErrorBody:
    body = SubmitRequest(
        task_type="dummy_short",
        parameters=SubmitRequestParameters.from_dict(parameters),
    )
    return submit.sync(client=client, body=body)


short = submitted({"duration": 0, "steps": 1})
assert isinstance(short, TaskResponse), short
while True:
    task = get.sync(short.task_id, client=client, wait=60)
    assert isinstance(task, TaskInfo), task
    if task.status not in (TaskStatus.PENDING, TaskStatus.RUNNING):
        break
assert task.status == TaskStatus.COMPLETED, task
assert task.parameters.to_dict() == {"duration": 0, "steps": 1}, task
assert task.completed_at >= task.created_at, task

long = submitted({"duration": 1e6, "steps": 1})
ended = cancel.sync(long.task_id, client=client)
assert isinstance(ended, TaskResponse) and ended.task_id == long.task_id, ended

listed = list_.sync(client=client, status=[TaskStatus.COMPLETED, TaskStatus.CANCELLED])
assert [one.task_id for one in listed] == [long.task_id, short.task_id], listed

refused = submitted({"stepz": 3})
assert isinstance(refused, ErrorBody) and refused.detail[0].loc == ["body", "parameters", "stepz"], refused
missing = get.sync(uuid.uuid4(), client=client)
assert isinstance(missing, ErrorBody) and missing.detail == "Task not found", missing
assert "tokenize" in [one.task_type for one in task_types.sync(client=client)]
print("passed")
