//! The account itself (Emarsys API: Settings).

use serde::{Deserialize, Serialize};

use super::{
    reply,
    request::{Effect, Method, Request},
};

/// What Emarsys says about the account.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// The number of the account; some accounts do not tell.
    #[serde(default, deserialize_with = "reply::optional_number")]
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
    #[serde(default, rename = "totalContacts", deserialize_with = "reply::optional_number")]
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

#[cfg(test)]
mod tests {
    use crate::emarsys::transport::fake::{Answer, client};

    #[tokio::test(start_paused = true)]
    async fn settings_are_read_with_and_without_numbers() {
        let full = r#"{"replyCode":0,"replyText":"OK","data":{"id":5120,"environment":"suite9.emarsys.net",
            "timezone":"Europe/Vienna","name":"acme","password_history_queue_size":3,"country":"Austria",
            "totalContacts":"48211"}}"#;
        let old = r#"{"replyCode":0,"replyText":"OK","data":{"name":"acme","country":null}}"#;
        let (client, script) = client([Answer::reply(200, full), Answer::reply(200, old)]);
        let settings = client.settings().await.unwrap();
        assert_eq!((settings.id, settings.contacts), (Some(5120), Some(48211)));
        assert_eq!(settings.timezone.as_deref(), Some("Europe/Vienna"));
        let settings = client.settings().await.unwrap();
        assert_eq!((settings.id, settings.contacts, settings.country), (None, None, None));
        assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/settings");
    }
}
