//! A picture in 4 x 4 tiles through a chain of filters: split, then get, resize, blur, normalise, sepia and
//! edges, sharpen, combine for each tile, then merge: the 130 tasks of the reference design. The filters are
//! those of the `image` crate.
//!
//! Tiles travel as `width` and `height` as little-endian u32 and then RGB bytes; the merged picture is a PNG.
//! The picture is drawn, the same for the same width; its height is two thirds of that.

use std::io::Cursor;

use bytes::Bytes;
use foresail_schemas::Workflow;
use foresail_worker::{Registry, TaskError, TaskInput, TaskOutput};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use crate::builder::{BuildError, WorkflowBuilder};

/// Tiles per side.
pub const TILES: u32 = 4;
/// Name of the picture in the outputs of `merge`.
pub const PICTURE: &str = "image.png";

/// Parameters of `image.split`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureParams {
    /// Width of the picture in pixels.
    pub width: u32,
}

/// Adds the functions that the workflow runs.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .register("image.split", split)
        .register("image.get", |input| filtered(&input, |tile| tile))
        .register("image.resize", |input| filtered(&input, half))
        .register("image.blur", |input| filtered(&input, |tile| imageops::blur(&tile, 2.0)))
        .register("image.normalise", |input| filtered(&input, normalised))
        .register("image.sepia", |input| filtered(&input, sepia))
        .register("image.edge", |input| filtered(&input, edges))
        .register("image.sharpen", |input| filtered(&input, |tile| imageops::unsharpen(&tile, 1.5, 4)))
        .register("image.combine", combine)
        .register("image.merge", merge)
}

/// 130 tasks over a picture of this width.
pub(super) fn transform(width: u64) -> Result<Workflow, BuildError> {
    let mut flow = WorkflowBuilder::new(format!("image-transform@{width}"))
        .description("Filters over the tiles of a picture");
    let width = u32::try_from(width).unwrap_or(u32::MAX);
    let tiles: Vec<String> = (0..TILES * TILES).map(|i| format!("tile-{i}")).collect();
    let split = flow.task("split").function("image.split", PictureParams { width }).outputs(&tiles).handle();
    let mut done = Vec::with_capacity(tiles.len());
    for (i, tile) in tiles.iter().enumerate() {
        let get = flow.task(format!("get-{i}")).named("get").function("image.get", ());
        let mut last = get.reads_output(&split, tile).handle();
        for step in ["resize", "blur", "normalise"] {
            let task = flow.task(format!("{step}-{i}")).named(step).function(format!("image.{step}"), ());
            last = task.reads(&last).handle();
        }
        let [sepia, edge] = ["sepia", "edge"].map(|step| {
            let task = flow.task(format!("{step}-{i}")).named(step).function(format!("image.{step}"), ());
            task.reads(&last).handle()
        });
        let task = flow.task(format!("sharpen-{i}")).named("sharpen").function("image.sharpen", ());
        let sharp = task.reads(&sepia).handle();
        let task = flow.task(format!("combine-{i}")).named("combine").function("image.combine", ());
        done.push(task.reads(&sharp).reads(&edge).handle());
    }
    let merge = flow.task("merge").function("image.merge", ()).outputs([PICTURE]);
    done.iter().fold(merge, |task, tile| task.reads(tile));
    flow.build()
}

/// Hills under a sky, with enough detail for every filter to have something to do.
fn picture(width: u32) -> RgbImage {
    let height = width * 2 / 3;
    let (w, h) = (f64::from(width), f64::from(height.max(1)));
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (f64::from(x) / w, f64::from(y) / h);
        let ridge = 0.45 + 0.1 * (6.0 * u).sin() + 0.05 * (17.0 * u + 1.0).sin() + 0.02 * (61.0 * u).sin();
        let grain = f64::from((x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)) >> 24) / 255.0;
        let [r, g, b] = match v > ridge {
            true => [0.25 + 0.3 * grain, 0.45 + 0.3 * (v - ridge) + 0.2 * grain, 0.15 + 0.1 * grain],
            false => [0.45 + 0.4 * v, 0.6 + 0.3 * v, 0.95 - 0.1 * grain],
        };
        Rgb([r, g, b].map(|c| (255.0 * f64::clamp(c, 0.0, 1.0)) as u8))
    })
}

fn encode(tile: &RgbImage) -> Bytes {
    let mut bytes = Vec::with_capacity(8 + tile.as_raw().len());
    bytes.extend_from_slice(&tile.width().to_le_bytes());
    bytes.extend_from_slice(&tile.height().to_le_bytes());
    bytes.extend_from_slice(tile.as_raw());
    bytes.into()
}

fn decode(bytes: &[u8]) -> Option<RgbImage> {
    let size = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (width, height) = (size(0)?, size(4)?);
    let pixels = bytes.get(8..)?;
    let expected = u64::from(width) * u64::from(height) * 3;
    (pixels.len() as u64 == expected).then(|| RgbImage::from_raw(width, height, pixels.to_vec()))?
}

fn tiles(input: &TaskInput) -> Result<Vec<RgbImage>, TaskError> {
    let named = input.inputs.iter().zip(&input.input_names);
    named
        .map(|(bytes, name)| {
            decode(bytes).ok_or_else(|| TaskError::new(format!("input `{name}` is no tile of a picture")))
        })
        .collect()
}

fn split(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let PictureParams { width } = input.params_as()?;
    if !(TILES * 2..=20_000).contains(&width) {
        return Err(TaskError::new(format!("`width` is `{width}`, it must lie between 8 and 20000")));
    }
    let whole = picture(width);
    let edge = |i: u32, len: u32| i * len / TILES;
    let mut cut = Vec::with_capacity((TILES * TILES) as usize);
    for row in 0..TILES {
        for column in 0..TILES {
            let (x, y) = (edge(column, whole.width()), edge(row, whole.height()));
            let (width, height) = (edge(column + 1, whole.width()) - x, edge(row + 1, whole.height()) - y);
            cut.push(encode(&imageops::crop_imm(&whole, x, y, width, height).to_image()));
        }
    }
    Ok(cut.into())
}

fn filtered(input: &TaskInput, filter: impl FnOnce(RgbImage) -> RgbImage) -> Result<TaskOutput, TaskError> {
    let tile = tiles(input)?.pop().ok_or_else(|| TaskError::new("a filter reads one tile"))?;
    Ok(encode(&filter(tile)).into())
}

fn half(tile: RgbImage) -> RgbImage {
    let (width, height) = ((tile.width() / 2).max(1), (tile.height() / 2).max(1));
    imageops::resize(&tile, width, height, FilterType::Lanczos3)
}

/// Spreads every channel over the whole range.
fn normalised(mut tile: RgbImage) -> RgbImage {
    let mut range = [(255_u8, 0_u8); 3];
    for pixel in tile.pixels() {
        for (channel, (low, high)) in pixel.0.iter().zip(&mut range) {
            (*low, *high) = ((*low).min(*channel), (*high).max(*channel));
        }
    }
    for pixel in tile.pixels_mut() {
        for (channel, (low, high)) in pixel.0.iter_mut().zip(&range) {
            let width = u32::from(high.saturating_sub(*low)).max(1);
            *channel = (u32::from(*channel - low) * 255 / width).min(255) as u8;
        }
    }
    tile
}

/// The usual weights of brown.
fn sepia(mut tile: RgbImage) -> RgbImage {
    const WEIGHTS: [[f32; 3]; 3] = [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]];
    for pixel in tile.pixels_mut() {
        let old = pixel.0.map(f32::from);
        let mixed = |row: [f32; 3]| row.iter().zip(old).map(|(w, c)| w * c).sum::<f32>().min(255.0) as u8;
        pixel.0 = WEIGHTS.map(mixed);
    }
    tile
}

/// Laplace's operator.
fn edges(tile: RgbImage) -> RgbImage {
    imageops::filter3x3(&tile, &[0.0, -1.0, 0.0, -1.0, 4.0, -1.0, 0.0, -1.0, 0.0])
}

/// Edges over the sharpened tile.
fn combine(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let tiles = tiles(&input)?;
    let [sharp, edge] = &tiles[..] else { return Err(TaskError::new("two tiles are combined")) };
    if sharp.dimensions() != edge.dimensions() {
        return Err(TaskError::new("tiles of different sizes cannot be combined"));
    }
    let mut combined = sharp.clone();
    for (pixel, edge) in combined.pixels_mut().zip(edge.pixels()) {
        pixel.0.iter_mut().zip(edge.0).for_each(|(c, e)| *c = c.saturating_add(e / 2));
    }
    Ok(encode(&combined).into())
}

fn merge(input: TaskInput) -> Result<TaskOutput, TaskError> {
    let tiles = tiles(&input)?;
    if tiles.len() != (TILES * TILES) as usize {
        return Err(TaskError::new(format!("{} tiles are no picture", tiles.len())));
    }
    let rows: Vec<&[RgbImage]> = tiles.chunks(TILES as usize).collect();
    let width = rows[0].iter().map(RgbImage::width).sum();
    let height = rows.iter().map(|row| row[0].height()).sum();
    let mut whole = RgbImage::new(width, height);
    let mut y = 0;
    for row in rows {
        let mut x = 0;
        for tile in row {
            imageops::replace(&mut whole, tile, x, y);
            x += i64::from(tile.width());
        }
        y += i64::from(row[0].height());
    }
    let mut png = Cursor::new(Vec::new());
    whole.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::reference;
    use crate::functions::registry;

    #[test]
    fn the_tiles_become_one_picture_of_half_the_size() {
        let workflow = transform(96).unwrap();
        assert_eq!(workflow.tasks().len(), 130);
        let done = reference::all_outputs(&workflow, &registry()).unwrap();
        let png = &done[&("merge".to_owned(), PICTURE.to_owned())];
        let merged = image::load_from_memory_with_format(png, ImageFormat::Png).unwrap().to_rgb8();
        assert_eq!(merged.dimensions(), (48, 32));
        let colours: std::collections::BTreeSet<[u8; 3]> = merged.pixels().map(|p| p.0).collect();
        assert!(colours.len() > 100, "only {} colours", colours.len());
    }

    #[test]
    fn a_tile_is_read_as_it_was_written_and_damage_is_found() {
        let tile = picture(9);
        let bytes = encode(&tile);
        assert_eq!(decode(&bytes), Some(tile));
        assert!(decode(&bytes[1..]).is_none() && decode(&[]).is_none());
    }

    #[test]
    fn a_normalised_tile_has_the_whole_range() {
        let tile = RgbImage::from_fn(2, 1, |x, _| Rgb([100 + x as u8; 3]));
        assert_eq!(normalised(tile).as_raw(), &[0, 0, 0, 255, 255, 255]);
    }
}
