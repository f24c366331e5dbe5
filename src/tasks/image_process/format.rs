//! Output formats: their names and limits.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::MAX_SIDE;

/// An output format.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Deserialize, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(try_from = "String")]
#[strum(ascii_case_insensitive)]
pub(super) enum Format {
    #[strum(to_string = "JPEG", serialize = "jpg")]
    Jpeg,
    #[strum(to_string = "PNG")]
    Png,
    #[strum(to_string = "WebP")]
    WebP,
    #[strum(to_string = "TIFF", serialize = "tif")]
    Tiff,
    #[strum(to_string = "BMP")]
    Bmp,
    #[strum(to_string = "GIF")]
    Gif,
}

impl Format {
    /// Name as shown to users.
    pub(super) fn name(self) -> &'static str {
        self.into()
    }

    /// Longest side of an image in this format.
    pub(super) fn longest_side(self) -> u32 {
        match self {
            Self::WebP => 16_383,
            // JPEG and GIF cannot hold more, the others are held to the same limit.
            Self::Jpeg | Self::Gif | Self::Png | Self::Tiff | Self::Bmp => MAX_SIDE,
        }
    }
}

/// Format of an output, and the source of that choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) format: Format,
    pub(super) source: Source,
}

/// Source of the choice of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    Parameter,
    Extension,
    Default,
}

impl Target {
    /// Prefers the format `asked` for, then that of the output's extension.
    pub(super) fn choose(asked: Option<Format>, output: &str) -> Self {
        let extension = Path::new(output).extension().and_then(|extension| extension.to_str());
        match (asked, extension.and_then(|extension| extension.parse().ok())) {
            (Some(format), _) => Self { format, source: Source::Parameter },
            (None, Some(format)) => Self { format, source: Source::Extension },
            (None, None) => Self { format: Format::Jpeg, source: Source::Default },
        }
    }
}

impl TryFrom<String> for Format {
    type Error = strum::ParseError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

/// Lists the canonical names, but accepts the other spellings too, so that a valid `jpeg` is not
/// reported along with an invalid width.
impl JsonSchema for Format {
    fn schema_name() -> Cow<'static, str> {
        "Format".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = Self::VARIANTS.iter().map(|format| format.name()).collect();
        let spellings: Vec<_> = names.iter().copied().chain(["jpg", "tif"]).map(any_case).collect();
        json_schema!({
            "oneOf": [
                { "enum": names },
                {
                    "description": "a name in any case, or `jpg`, `tif`",
                    "type": "string",
                    "pattern": format!("^({})$", spellings.join("|")),
                    "not": { "enum": names },
                },
            ],
        })
    }
}

/// Returns `[pP][nN][gG]` for `PNG`: regular expressions in JSON Schema have no flags.
fn any_case(name: &str) -> String {
    let both =
        |letter: char| format!("[{}{}]", letter.to_ascii_lowercase(), letter.to_ascii_uppercase());
    name.chars().map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_may_be_written_in_any_case() {
        for (spelling, format) in [
            ("JPEG", Format::Jpeg),
            ("jpg", Format::Jpeg),
            ("Png", Format::Png),
            ("webp", Format::WebP),
            ("TIF", Format::Tiff),
            ("bmp", Format::Bmp),
            ("gIf", Format::Gif),
        ] {
            assert_eq!(Format::try_from(spelling.to_owned()), Ok(format), "{spelling}");
        }
        assert!(Format::try_from("HEIC".to_owned()).is_err());
    }

    #[test]
    fn the_extension_decides_where_nothing_else_does() {
        for (asked, output, format, source) in [
            (None, "out.png", Format::Png, Source::Extension),
            (None, "a.b/out.TIF", Format::Tiff, Source::Extension),
            (None, "out.jpg", Format::Jpeg, Source::Extension),
            (None, "out.dat", Format::Jpeg, Source::Default),
            (None, "png", Format::Jpeg, Source::Default),
            (Some(Format::WebP), "out.png", Format::WebP, Source::Parameter),
        ] {
            assert_eq!(Target::choose(asked, output), Target { format, source }, "{output}");
        }
    }

    #[test]
    fn a_format_has_the_name_that_users_know() {
        let names: Vec<_> = Format::VARIANTS.iter().map(|format| format.name()).collect();
        assert_eq!(names, ["JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF"]);
    }
}
