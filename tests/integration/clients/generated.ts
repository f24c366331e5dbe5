/** What openapi-typescript makes of the OpenAPI document, used with openapi-fetch. */

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.d.ts";

type Task = components["schemas"]["TaskInfo"];

const client = createClient<paths>({ baseUrl: "http://localhost:8000" });

async function submit(duration: number): Promise<string> {
  const { data, error } = await client.POST("/tasks", {
    body: { task_type: "dummy_short", parameters: { duration, steps: 1 }, tags: { made: "by-generator" } },
  });
  assert.ok(data && "task_id" in data, JSON.stringify(error));
  return data.task_id;
}

const short = await submit(0);
let task: Task | undefined;
do {
  const path = { task_id: short };
  ({ data: task } = await client.GET("/tasks/{task_id}", { params: { path, query: { wait: 60 } } }));
} while (task?.status === "pending" || task?.status === "running");
assert.equal(task?.status, "completed");

const long = await submit(1e6);
const cancelled = await client.DELETE("/tasks/{task_id}", { params: { path: { task_id: long } } });
assert.equal(cancelled.data?.task_id, long);

const listed = await client.GET("/tasks", {
  params: { query: { status: ["completed", "cancelled"], limit: 10 } },
});
assert.deepEqual(listed.data?.map((one) => one.task_id), [long, short]);

const refused = await client.POST("/tasks", { body: { task_type: "dummy_short", parameters: { stepz: 3 } } });
const detail = refused.error?.detail;
assert.ok(Array.isArray(detail));
assert.deepEqual(detail[0]?.loc, ["body", "parameters", "stepz"]);
console.log("passed");
