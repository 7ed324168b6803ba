//! Sets of words that may grow: what is not known is kept as it came.

/// Makes an enum of the words that Emarsys is known to say, with one more variant for all others.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $variant_doc])+ $variant,)+
            /// A word that this crate does not know, as Emarsys said it.
            Other(String),
        }

        impl $name {
            /// The word that Emarsys uses.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }
    };
}

pub(crate) use words;
