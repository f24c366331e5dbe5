//! The encodings that can be asked for.

use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tiktoken_rs::CoreBPE;

use super::encoder::Encoder;
use super::words::WordRules;

/// A vocabulary of OpenAI with its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encoding {
    /// GPT-2; the same as `r50k_base`.
    Gpt2,
    /// GPT-3 models such as davinci.
    R50kBase,
    /// Codex models, text-davinci-002 and -003.
    P50kBase,
    /// Edit models such as text-davinci-edit-001.
    P50kEdit,
    /// GPT-3.5 Turbo, GPT-4, and the text-embedding models.
    Cl100kBase,
    /// GPT-4o, GPT-4.1, GPT-5, and the o series.
    O200kBase,
    /// gpt-oss models.
    O200kHarmony,
}

impl Encoding {
    /// Loads the vocabulary at the first call, which takes up to 3 s.
    pub(super) fn encoder(self) -> &'static Encoder {
        static R50K_BASE: LazyLock<Encoder> =
            LazyLock::new(|| Encoder::new(WordRules::R50k, whole(tiktoken_rs::r50k_base())));
        static P50K_BASE: LazyLock<Encoder> =
            LazyLock::new(|| Encoder::new(WordRules::R50k, whole(tiktoken_rs::p50k_base())));
        static P50K_EDIT: LazyLock<Encoder> =
            LazyLock::new(|| P50K_BASE.with_special_tokens_of(&whole(tiktoken_rs::p50k_edit())));
        static CL100K_BASE: LazyLock<Encoder> =
            LazyLock::new(|| Encoder::new(WordRules::Cl100k, whole(tiktoken_rs::cl100k_base())));
        static O200K_BASE: LazyLock<Encoder> =
            LazyLock::new(|| Encoder::new(WordRules::O200k, whole(tiktoken_rs::o200k_base())));
        static O200K_HARMONY: LazyLock<Encoder> = LazyLock::new(|| {
            O200K_BASE.with_special_tokens_of(&whole(tiktoken_rs::o200k_harmony()))
        });
        match self {
            Self::Gpt2 | Self::R50kBase => &R50K_BASE,
            Self::P50kBase => &P50K_BASE,
            Self::P50kEdit => &P50K_EDIT,
            Self::Cl100kBase => &CL100K_BASE,
            Self::O200kBase => &O200K_BASE,
            Self::O200kHarmony => &O200K_HARMONY,
        }
    }
}

fn whole<E: fmt::Debug>(vocabulary: Result<CoreBPE, E>) -> CoreBPE {
    vocabulary.expect("tiktoken-rs can read its own vocabularies")
}

#[cfg(test)]
mod tests {
    use super::super::pieces::may_cut;
    use super::*;

    #[test]
    fn vocabularies_are_whole() {
        for (encoding, ordinary, special) in [
            (Encoding::Gpt2, 50_257, 1),
            (Encoding::P50kBase, 50_281, 1),
            (Encoding::P50kEdit, 50_281, 4),
            (Encoding::Cl100kBase, 100_256, 5),
            (Encoding::O200kBase, 199_998, 2),
            (Encoding::O200kHarmony, 199_998, 1_090),
        ] {
            assert_eq!(encoding.encoder().sizes(), (ordinary, special), "{encoding:?}");
        }
    }

    #[test]
    fn no_special_token_is_ever_cut() {
        for encoding in [Encoding::P50kEdit, Encoding::Cl100kBase, Encoding::O200kHarmony] {
            for name in encoding.encoder().special_tokens() {
                let pairs = name.chars().zip(name.chars().skip(1));
                let cuts = pairs.filter(|&(before, after)| may_cut(before, after)).count();
                assert_eq!(cuts, 0, "{name}");
                let found = encoding.encoder().find_special_token(name).map(|found| found.name);
                assert_eq!(found, Some(name));
            }
        }
    }
}
