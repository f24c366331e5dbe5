//! Ordered work on several threads, which wait for each other, never for time.

use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::ThreadId;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::task::CpuSlots;
use crate::task::testing::TestRun;

/// A context with this many CPU slots, one of them held by the caller.
fn context(slots: usize) -> (TempDir, TestRun, TaskContext) {
    let folder = tempdir().unwrap();
    let mut run = TestRun::new(folder.path(), None, None);
    run.slots = CpuSlots::new(slots - 1);
    let ctx = run.context(Default::default()).unwrap();
    (folder, run, ctx)
}

fn count(to: u32) -> impl FnMut() -> Result<Option<(u32, usize)>, TaskError> {
    let mut numbers = 0..to;
    move || Ok(numbers.next().map(|item| (item, 1)))
}

fn failure<T>(text: &str) -> Result<T, TaskError> {
    Err(TaskError::permanent(text))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn results_come_in_the_order_of_the_items(
        results in prop::collection::vec(0..4_u32, 0..60), threads in 1..5_usize,
    ) {
        let (_folder, _run, ctx) = context(threads);
        let mut taken = Vec::new();
        ctx.on_threads(
            threads,
            count(results.len() as u32),
            || |item, send| (0..results[item as usize]).try_for_each(|part| send((item, part))),
            |result| {
                taken.push(result);
                Ok(())
            },
        ).unwrap();
        let parts = |item: usize| (0..results[item]).map(move |part| (item as u32, part));
        prop_assert_eq!(taken, (0..results.len()).flat_map(parts).collect::<Vec<_>>());
    }

    #[test]
    fn the_error_of_the_earliest_item_is_told(
        faulty in prop::collection::btree_set(0..40_u32, 1..4), threads in 1..5_usize, place: u8,
    ) {
        let (_folder, _run, ctx) = context(threads);
        let fail = |item: u32, here| match faulty.contains(&item) && item as u8 % 3 == here {
            true => failure(&item.to_string()),
            false => Ok(item),
        };
        let here = place % 3;
        let mut numbers = 0..40;
        let mut taken = 0;
        let result = ctx.on_threads(
            threads,
            || numbers.next().map(|item| Ok((fail(item, here)?, 1))).transpose(),
            || |item, send| send(fail(item, (here + 1) % 3)?),
            |item| {
                assert_eq!(item, taken);
                taken += 1;
                fail(item, (here + 2) % 3).map(drop)
            },
        );
        prop_assert_eq!(result.unwrap_err().to_string(), faulty.first().unwrap().to_string());
    }
}

#[test]
fn an_earlier_item_that_fails_later_counts() {
    let (_folder, _run, ctx) = context(2);
    let both = Barrier::new(2);
    let (failed, has_failed) = mpsc::channel();
    let has_failed = Mutex::new(has_failed);
    let result = ctx.on_threads(
        2,
        count(100),
        || {
            |item, send| {
                if item < 2 {
                    both.wait();
                }
                match item {
                    0 => {
                        has_failed.lock().recv().unwrap();
                        failure("first")
                    }
                    1 => {
                        failed.send(()).unwrap();
                        failure("second")
                    }
                    _ => send(()),
                }
            }
        },
        |()| panic!("nothing comes before the first item"),
    );
    assert_eq!(result.unwrap_err().to_string(), "first");
}

#[test]
fn one_slot_is_one_thread() {
    let (_folder, _run, ctx) = context(1);
    let mut threads: Vec<ThreadId> = Vec::new();
    let thread = || thread::current().id();
    let note = |thread| {
        threads.push(thread);
        Ok(())
    };
    ctx.on_threads(8, count(50), || |_, send| send(thread()), note).unwrap();
    assert_eq!(threads, [thread(); 50]);
}

#[test]
fn a_panic_anywhere_is_a_panic_of_the_caller() {
    for panicking_thread in [0, 1] {
        let (_folder, run, ctx) = context(2);
        let both = Barrier::new(2);
        let caller = thread::current().id();
        let work = AssertUnwindSafe(|| {
            let worker = || {
                let mut first = true;
                let (both, here) = (&both, usize::from(thread::current().id() != caller));
                move |_: u32, send: &Sender<'_, ()>| {
                    // Once per thread, so that both are running.
                    if std::mem::take(&mut first) {
                        both.wait();
                        assert_ne!(here, panicking_thread, "on purpose");
                    }
                    send(())
                }
            };
            ctx.on_threads(2, || Ok(Some((1, 1))), worker, |()| Ok(()))
        });
        let payload = panic::catch_unwind(work).unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("on purpose"), "{text}");
        assert!(run.slots.try_acquire().is_some(), "the slot was not given back");
    }
}

#[test]
fn a_slot_that_another_task_waits_for_is_given_back() {
    let (_folder, run, ctx) = context(2);
    let caller = thread::current().id();
    let helped = AtomicBool::new(false);
    let got_it = AtomicBool::new(false);
    thread::scope(|scope| {
        let (helper, has_helper) = mpsc::channel();
        let (got_it, slots) = (&got_it, &run.slots);
        scope.spawn(move || {
            has_helper.recv().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _slot = runtime.block_on(slots.acquire());
            got_it.store(true, Ordering::Relaxed);
        });
        // Yields items until the other task has its slot.
        let next = || Ok((!got_it.load(Ordering::Relaxed)).then_some(((), 1)));
        let worker = || {
            if thread::current().id() != caller && !helped.swap(true, Ordering::Relaxed) {
                helper.send(()).unwrap();
            }
            |(), send: &Sender<'_, ()>| send(())
        };
        ctx.on_threads(2, next, worker, |()| Ok(())).unwrap();
    });
    assert!(helped.into_inner());
}

#[test]
fn helpers_count_as_work_of_the_attempt() {
    let (_folder, run, ctx) = context(2);
    let both = Barrier::new(2);
    let worker = || {
        |item, send: &Sender<'_, usize>| {
            both.wait();
            let threads = if item == 0 { ctx.attempt.blocking.abandon() } else { 0 };
            both.wait();
            send(threads)
        }
    };
    let mut abandoned = Vec::new();
    let note = |threads| {
        abandoned.push(threads);
        Ok(())
    };
    ctx.on_threads(2, count(2), worker, note).unwrap();
    assert_eq!(abandoned, [1, 0]);
    assert_eq!(run.slots.abandoned(), 0);
    assert!(run.slots.try_acquire().is_some());
}

#[test]
fn a_cancelled_task_stops_at_the_next_item() {
    let (_folder, run, ctx) = context(2);
    let worker = || {
        |item, send: &Sender<'_, ()>| {
            if item == 5 {
                run.token.cancel();
            }
            send(())
        }
    };
    let endless = count(u32::MAX);
    let result = ctx.on_threads(2, endless, worker, |()| Ok(()));
    assert!(matches!(result, Err(TaskError::Cancelled)));
}

#[test]
fn large_items_are_under_way_one_at_a_time() {
    let (_folder, _run, ctx) = context(4);
    let under_way = AtomicUsize::new(0);
    let mut sizes = [1, MAX_BYTES, 2 * MAX_BYTES, 1].repeat(10).into_iter();
    let next = || {
        let item = sizes.next().map(|size| (size, size));
        Ok(item)
    };
    let worker = || {
        |size: usize, send: &Sender<'_, usize>| {
            let others = under_way.fetch_add(size, Ordering::Relaxed);
            assert!(others == 0 || others + size <= MAX_BYTES, "{size} beside {others}");
            send(size)
        }
    };
    let take = |size| {
        under_way.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    };
    ctx.on_threads(4, next, worker, take).unwrap();
}
