/** The React hook of docs/CLIENTS.md in a page: follows a task, by polling too, and says what is wrong. */

import assert from "node:assert/strict";
import { Window } from "happy-dom";
import { TaskServer, type Task } from "./taskServer.ts";
import { useTask } from "./useTask.ts";

const page = new Window({ url: "http://localhost:3000" });
Object.assign(globalThis, { window: page, document: page.document });
const { cleanup, renderHook, waitFor } = await import("@testing-library/react");

const server = new TaskServer("http://localhost:8000");
const patience = { timeout: 100_000, interval: 10 };
const submit = () => server.submit("dummy_very_long");

/** Shows a task that runs until it has been cancelled; returns all that was shown. */
async function shown(id: string): Promise<(Task | undefined)[]> {
  const seen: (Task | undefined)[] = [];
  const { result, unmount } = renderHook(() => {
    const state = useTask(id, server);
    seen.push(state.task);
    return state;
  });
  await waitFor(() => assert.equal(result.current.task?.status, "running"), patience);
  await server.cancel(id);
  await waitFor(() => assert.equal(result.current.task?.status, "cancelled"), patience);
  unmount();
  return seen;
}

const realFetch = globalThis.fetch;
const asked: string[] = [];
let streams = true;
globalThis.fetch = async (input, init) => {
  if (!init?.method) asked.push(new URL(String(input)).pathname);
  if (!streams && String(input).endsWith("/events")) throw new TypeError("fetch failed");
  return realFetch(input, init);
};

// By the stream alone.
const streamed = await submit();
asked.length = 0;
const seen = await shown(streamed);
assert.equal(seen[0], undefined);
assert.deepEqual(new Set(asked), new Set([`/tasks/${streamed}/events`]));

// By polling.
streams = false;
const polled = await submit();
asked.length = 0;
await shown(polled);
assert.ok(asked.includes(`/tasks/${polled}`));
streams = true;

// Another id is another task, and without an id nothing is asked for.
const first = await server.submit("dummy_very_long");
const { result, rerender, unmount } = renderHook(({ id }: { id?: string }) => useTask(id, server), {
  initialProps: { id: first } as { id?: string },
});
await waitFor(() => assert.equal(result.current.task?.task_id, first), patience);
rerender({ id: streamed });
await waitFor(() => assert.equal(result.current.task?.task_id, streamed), patience);
asked.length = 0;
rerender({ id: undefined });
await waitFor(() => assert.deepEqual(result.current, {}), patience);
assert.deepEqual(asked, []);

// What is wrong is told.
rerender({ id: "7b0d8f5e-6a1c-4b8e-9a53-0f0d6a0a6a11" });
await waitFor(() => assert.equal(result.current.error?.message, "Task not found"), patience);
unmount();
await server.cancel(first);
cleanup();
await page.happyDOM.close();
console.log("passed");
