//! The account itself (Emarsys API: Settings).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    reply,
    request::{Effect, Method, Request},
};

/// What Emarsys says about the account.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// The number of the account; some accounts do not tell.
    #[serde(default, deserialize_with = "number")]
    pub id: Option<u64>,
    /// The host name of the installation.
    #[serde(default)]
    pub environment: Option<String>,
    /// The time zone, such as `Europe/Vienna`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The name of the account.
    #[serde(default)]
    pub name: Option<String>,
    /// The country of the account.
    #[serde(default)]
    pub country: Option<String>,
    /// How many contacts the account has; some accounts do not tell.
    #[serde(default, rename = "totalContacts", deserialize_with = "number")]
    pub contacts: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct ReadSettings {}

impl Request for ReadSettings {
    type Reply = Settings;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "settings";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("customer.settings");
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(reply::number(&value).and_then(|number| number.try_into().ok()))
}
