//! Memory reservations and cancellation.

use std::sync::Arc;

use image::ColorType;
use image::metadata::Orientation;
use strum::VariantArray;

use super::super::fit::Plan;
use super::super::header::Header;
use super::super::input::Input;
use super::super::{encode, load, resize};
use super::*;
use crate::task::{MEMORY_BUDGET, TaskContext};

fn context(run: &TestRun) -> TaskContext {
    run.context(Arc::default()).unwrap()
}

#[tokio::test]
async fn an_image_waits_for_the_memory_that_others_hold() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(40, 30));
    let run = TestRun::new(desk.0.path(), Some("in.png"), Some("out.png"));
    let held = context(&run).reserve_memory(MEMORY_BUDGET).await.unwrap();
    let task = run.run(Box::new(to(Format::Png, 8, 6)));
    let release = async {
        while !run.progress.read().message.starts_with("Waiting for ") {
            tokio::task::yield_now().await;
        }
        assert!(run.progress.read().message.ends_with(" MiB of memory"));
        drop(held);
    };
    let (result, ()) = tokio::join!(task, release);
    assert_eq!(result.unwrap()["new_size"], json!([8, 6]));
    // The task has released all of it.
    context(&run).reserve_memory(MEMORY_BUDGET).await.unwrap();
}

#[tokio::test]
async fn the_wait_for_memory_can_be_cancelled() {
    let desk = Desk::new();
    desk.draw("in.png", &speckled(40, 30));
    let run = TestRun::new(desk.0.path(), Some("in.png"), Some("out.png"));
    let _held = context(&run).reserve_memory(MEMORY_BUDGET).await.unwrap();
    let cancel = async {
        while !run.progress.read().message.starts_with("Waiting for ") {
            tokio::task::yield_now().await;
        }
        run.token.cancel();
    };
    let (result, ()) = tokio::join!(run.run(Box::new(to(Format::Png, 8, 6))), cancel);
    assert!(matches!(result, Err(TaskError::Cancelled)), "{result:?}");
}

#[tokio::test]
async fn more_than_the_whole_budget_is_refused() {
    let desk = Desk::new();
    let run = TestRun::new(desk.0.path(), None, None);
    let error = context(&run).reserve_memory(MEMORY_BUDGET + 1).await.unwrap_err();
    let expected = "the task needs 2561 MiB of memory, but all tasks share a budget of 2560 MiB";
    assert!(matches!(error, TaskError::Failed { message, permanent: true } if message == expected));
}

/// Header of a small image, written as the input of this context.
fn header_of(desk: &Desk, ctx: &TaskContext, format: ImageFormat) -> Header {
    desk.put("in", &encoded(&speckled(16, 16), format));
    let file = ctx.open_input().unwrap();
    Header::read(&Input::new(ctx, &file)).unwrap()
}

/// No image within the limits needs more than the whole budget.
#[test]
fn the_largest_images_fit_the_budget() {
    let desk = Desk::new();
    let run = TestRun::new(desk.0.path(), Some("in"), None);
    let ctx = context(&run);
    for format in [ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Png, ImageFormat::WebP] {
        let mut header = header_of(&desk, &ctx, format);
        for (color, size) in [
            (ColorType::Rgb8, (16_000, 12_500)),
            (ColorType::Rgba8, (16_000, 12_500)),
            (ColorType::Rgba16, (11_585, 11_585)),
        ] {
            (header.color, header.size) = (color, size);
            for &output in Format::VARIANTS {
                let needed = header.memory(&to(output, 16_000, 8_300), output);
                assert!(needed <= MEMORY_BUDGET, "{format:?} to {output:?}: {needed}");
            }
        }
    }
}

#[test]
fn a_photograph_takes_what_it_takes() {
    let desk = Desk::new();
    let run = TestRun::new(desk.0.path(), Some("in"), None);
    let ctx = context(&run);
    let mut header = header_of(&desk, &ctx, ImageFormat::Jpeg);
    header.size = (6000, 4000);
    let needed = header.memory(&to(Format::Jpeg, 800, 600), Format::Jpeg) >> 20;
    assert!((80..200).contains(&needed), "{needed} MiB");
}

#[test]
fn decoding_and_resizing_stop_when_they_should() {
    let desk = Desk::new();
    for format in FORMATS {
        desk.put("in", &encoded(&speckled(64, 64), format));
        let run = TestRun::new(desk.0.path(), Some("in"), None);
        let ctx = context(&run);
        let file = ctx.open_input().unwrap();
        let input = Input::new(&ctx, &file);
        let header = Header::read(&input).unwrap();
        run.token.cancel();
        let result = Header::read(&input).map(drop);
        assert!(matches!(result, Err(TaskError::Cancelled)), "{format:?}: {result:?}");
        let result =
            load::load(&input, &header, Format::Png, |part| Plan { part, new: (4, 3) }).map(drop);
        assert!(matches!(result, Err(TaskError::Cancelled)), "{format:?}: {result:?}");
        let result = resize::resize(&ctx, speckled(8, 8), Orientation::NoTransforms, (4, 3));
        assert!(matches!(result, Err(TaskError::Cancelled)), "{result:?}");
    }
}

#[test]
fn encoding_stops_when_it_should() {
    let desk = Desk::new();
    for &format in Format::VARIANTS {
        let name = format!("{format:?}");
        let run = TestRun::new(desk.0.path(), None, Some(&name));
        let ctx = context(&run);
        let output = ctx.create_output().unwrap();
        let image = encode::convert(speckled(64, 64), format);
        run.token.cancel();
        let result = encode::encode(&ctx, &image, None, (format, 85), output);
        assert!(result.is_err(), "{format:?}");
    }
}
