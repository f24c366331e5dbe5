//! Lanczos resampling, with the passes in the order of Pillow.

use fast_image_resize::images::{CroppedImage, CroppedImageMut};
use fast_image_resize::{FilterType, MulDiv, ResizeAlg, ResizeOptions, Resizer};
use image::DynamicImage;
use image::metadata::Orientation;

use super::MAX_BYTES;
use crate::task::{TaskContext, TaskError};

/// Rows or columns of a stripe. Each stripe computes the filter weights, so narrow ones are slow.
pub(super) const STRIPE: u32 = 512;

/// Resizes an image, then turns it upright: the other order would take far more work.
///
/// Weighs colours by their alpha to avoid fringes. `new` is the upright size.
pub(super) fn resize(
    ctx: &TaskContext,
    mut image: DynamicImage,
    orientation: Orientation,
    new: (u32, u32),
) -> Result<DynamicImage, TaskError> {
    let bytes = u64::from(new.0) * u64::from(new.1) * u64::from(image.color().bytes_per_pixel());
    if bytes > MAX_BYTES {
        let limit = MAX_BYTES >> 20;
        return Err(TaskError::permanent(format!(
            "the new image needs more than {limit} MiB of memory"
        )));
    }
    let old = (image.width(), image.height());
    if old != turn(new, orientation) {
        let has_alpha = image.color().has_alpha();
        if has_alpha {
            MulDiv::new().multiply_alpha_inplace(&mut image)?;
        }
        image = resample(ctx, image, after_first_pass(old, orientation, new))?;
        image = resample(ctx, image, turn(new, orientation))?;
        if has_alpha {
            MulDiv::new().divide_alpha_inplace(&mut image)?;
        }
    }
    image.apply_orientation(orientation);
    Ok(image)
}

/// Size after the first pass. `old` and the result are stored sizes, `new` is the upright size.
pub(super) fn after_first_pass(
    old: (u32, u32),
    orientation: Orientation,
    new: (u32, u32),
) -> (u32, u32) {
    turn(between(turn(old, orientation), new), orientation)
}

/// Converts the upright size to the stored size, or back.
pub(super) fn turn((width, height): (u32, u32), orientation: Orientation) -> (u32, u32) {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    }
}

/// Size between the horizontal and the vertical pass, in the order of Pillow. It never has more
/// pixels than the larger of the two images.
fn between(old: (u32, u32), new: (u32, u32)) -> (u32, u32) {
    let lost_width = i64::from(old.0) - i64::from(new.0);
    let lost_height = i64::from(old.1) - i64::from(new.1);
    let down_first = lost_height > 0 && lost_height > 2 * lost_width;
    if down_first { (old.0, new.1) } else { (new.0, old.1) }
}

/// Runs one pass: at most one side changes. Given both, the resizer would choose its own order, and
/// since each pass clips what overshoots black and white, hard edges would differ from Pillow by up
/// to 48 of 255 levels instead of 2.
///
/// Works in stripes along the unchanged side, with a check for cancellation between them.
fn resample(
    ctx: &TaskContext,
    image: DynamicImage,
    (width, height): (u32, u32),
) -> Result<DynamicImage, TaskError> {
    let (old_width, old_height) = (image.width(), image.height());
    if (old_width, old_height) == (width, height) {
        return Ok(image);
    }
    let mut resized = DynamicImage::new(width, height, image.color());
    let mut resizer = Resizer::new();
    let across = old_height == height;
    let side = if across { height } else { width };
    for start in (0..side).step_by(STRIPE as usize) {
        ctx.check_cancelled()?;
        let length = STRIPE.min(side - start);
        let stripe = |width, height| match across {
            true => (0, start, width, length),
            false => (start, 0, length, height),
        };
        let (left, top, part_width, part_height) = stripe(old_width, old_height);
        let source = CroppedImage::new(&image, left, top, part_width, part_height)?;
        let (left, top, part_width, part_height) = stripe(width, height);
        let mut target = CroppedImageMut::new(&mut resized, left, top, part_width, part_height)?;
        resizer.resize(&source, &mut target, &lanczos())?;
    }
    Ok(resized)
}

/// Options that ignore transparency: [`resize`] weighs the alpha itself.
pub(super) fn lanczos() -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use image::{GrayImage, ImageBuffer, Luma, Rgba, RgbaImage};

    use super::*;
    use crate::task::testing::TestRun;

    const EDGES: [u8; 24] = [
        0, 255, 0, 255, 255, 0, //
        255, 255, 0, 0, 255, 0, //
        0, 0, 255, 0, 0, 255, //
        255, 0, 0, 255, 0, 0,
    ];

    fn edges() -> DynamicImage {
        GrayImage::from_raw(6, 4, EDGES.to_vec()).unwrap().into()
    }

    fn resized(image: DynamicImage, orientation: Orientation, new: (u32, u32)) -> DynamicImage {
        let ctx = TestRun::new(Path::new("."), None, None).context(Arc::default()).unwrap();
        resize(&ctx, image, orientation, new).unwrap()
    }

    fn assert_close(found: &[u8], expected: &[u8]) {
        assert_eq!(found.len(), expected.len());
        let close = found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(close, "{found:?} is not {expected:?}");
    }

    #[test]
    fn hard_edges_come_out_as_from_pillow() {
        let smaller = resized(edges(), Orientation::NoTransforms, (4, 3));
        let pillow = [169, 84, 212, 91, 127, 120, 28, 148, 94, 59, 123, 44];
        assert_close(smaller.as_bytes(), &pillow);
        let wider = resized(edges(), Orientation::NoTransforms, (7, 2));
        let pillow = [93, 228, 111, 23, 179, 204, 26, 161, 38, 72, 136, 59, 32, 123];
        assert_close(wider.as_bytes(), &pillow);
        let taller = resized(edges(), Orientation::NoTransforms, (3, 5));
        let pillow = [82, 186, 150, 210, 86, 126, 147, 54, 114, 37, 102, 83, 110, 93, 38];
        assert_close(taller.as_bytes(), &pillow);
    }

    #[test]
    fn sixteen_bits_come_out_as_from_pillow() {
        let deep = EDGES.map(|sample| u16::from(sample) * 257).to_vec();
        let deep = ImageBuffer::<Luma<u16>, _>::from_raw(6, 4, deep).unwrap().into();
        let smaller = resized(deep, Orientation::NoTransforms, (4, 3)).into_luma16();
        let pillow =
            [43431, 21688, 54504, 23340, 32589, 30865, 7174, 38054, 24310, 15106, 31481, 11213];
        assert!(
            smaller.iter().zip(pillow).all(|(&a, b)| a.abs_diff(b) <= 1),
            "{:?} is not {pillow:?}",
            smaller.as_raw()
        );
    }

    #[test]
    fn resizing_then_turning_is_turning_then_resizing() {
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut upright = edges();
            upright.apply_orientation(orientation);
            let expected = resized(upright, Orientation::NoTransforms, (5, 3));
            let found = resized(edges(), orientation, (5, 3));
            assert_eq!((found.width(), found.height()), (5, 3));
            assert_close(found.as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_transparent_has_no_say_in_colour() {
        let stripes = RgbaImage::from_fn(64, 64, |x, _| match x % 3 {
            0 => Rgba([0, 0, 0, 0]),
            _ => Rgba([255, 255, 255, 255]),
        });
        let small = resized(stripes.into(), Orientation::NoTransforms, (20, 20));
        for Rgba([red, .., alpha]) in small.into_rgba8().pixels() {
            assert!(*alpha > 100 && *red >= 254, "{red} at alpha {alpha}");
        }
    }

    #[test]
    fn between_the_passes_no_image_is_larger_than_both() {
        for (old, new, expected) in [
            ((6000, 4000), (800, 600), (800, 4000)),
            ((800, 600), (1600, 100), (800, 100)),
            ((1, 65_535), (65_535, 1), (1, 1)),
            ((65_535, 1), (1, 65_535), (1, 1)),
            ((3, 4), (9, 8), (9, 4)),
        ] {
            assert_eq!(between(old, new), expected, "{old:?} to {new:?}");
        }
    }
}
