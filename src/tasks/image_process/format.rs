//! Output formats: their names and limits.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
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

    /// Chooses the format `asked` for, or that of the extension, and names the source of the choice.
    pub(super) fn choose(asked: Option<Self>, output: &str) -> (Self, &'static str) {
        let extension = Path::new(output).extension().and_then(|extension| extension.to_str());
        match (asked, extension.and_then(|extension| extension.parse().ok())) {
            (Some(format), _) => (format, "parameter"),
            (None, Some(format)) => (format, "extension"),
            (None, None) => (Self::Jpeg, "default"),
        }
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
            (None, "out.png", Format::Png, "extension"),
            (None, "a.b/out.TIF", Format::Tiff, "extension"),
            (None, "out.jpg", Format::Jpeg, "extension"),
            (None, "out.dat", Format::Jpeg, "default"),
            (None, "png", Format::Jpeg, "default"),
            (Some(Format::WebP), "out.png", Format::WebP, "parameter"),
        ] {
            assert_eq!(Format::choose(asked, output), (format, source), "{output}");
        }
    }

    #[test]
    fn a_format_has_the_name_that_users_know() {
        let names: Vec<_> = Format::VARIANTS.iter().map(|format| format.name()).collect();
        assert_eq!(names, ["JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF"]);
    }
}
