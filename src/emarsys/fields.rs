//! Contact fields (Emarsys API: Fields).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    client::Client,
    ids::FieldId,
    reply::List,
    request::{Effect, Method, Request},
    words::words,
};
use crate::{Error, Result};

/// The calls about contact fields; made by [`Client::fields`].
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub(crate) &'a Client);

/// A contact field of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its number.
    pub id: FieldId,
    /// Its name in English, as people see it.
    pub name: Option<String>,
    /// Its name for programs. Emarsys cuts it at 32 characters.
    pub string_id: Option<String>,
    /// What it holds.
    pub application_type: ApplicationType,
}

words! {
    /// What a field holds. Lengths are those of fields made by the account.
    ApplicationType {
        /// Text of up to 60 characters.
        ShortText = "shorttext",
        /// Text of up to 255 characters.
        LongText = "longtext",
        /// Text without a stated limit.
        LargeText = "largetext",
        /// A number of up to 24 digits.
        Numeric = "numeric",
        /// A day, `YYYY-MM-DD`.
        Date = "date",
        /// A day of birth, `YYYY-MM-DD`.
        BirthDate = "birthdate",
        /// A web address.
        Url = "url",
        /// A fax number.
        Fax = "fax",
        /// One of the field's choices, by its id.
        SingleChoice = "singlechoice",
        /// Some of the field's choices, as a list of their ids.
        MultiChoice = "multichoice",
        /// The interests; a multiple choice.
        Interests = "interests",
        /// A field with rules of its own, such as the opt-in.
        Special = "special",
        /// A voucher code; never written.
        Voucher = "voucher",
    }
}

/// One choice of a single or multiple choice field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// What is sent and read as the value.
    pub id: u32,
    /// What people see, in English.
    pub label: String,
}

/// A field to be created.
#[derive(Clone, Debug, Serialize)]
pub struct NewField {
    name: String,
    application_type: ApplicationType,
    #[serde(skip_serializing_if = "Option::is_none")]
    string_id: Option<String>,
}

impl NewField {
    /// A field of this name and type. The type is one of short, long and large text, numeric, date and URL: others
    /// are made by hand, in Emarsys. Neither can be changed later.
    pub fn new(name: impl Into<String>, application_type: ApplicationType) -> Self {
        Self { name: name.into(), application_type, string_id: None }
    }

    /// Its name for programs, such as `loyalty_level`; default: chosen by Emarsys.
    #[must_use]
    pub fn string_id(mut self, string_id: impl Into<String>) -> Self {
        self.string_id = Some(string_id.into());
        self
    }

    fn check(&self) -> Result<()> {
        const NAME_CHARS_MAX: usize = 200;
        if self.name.trim().is_empty() {
            return Err(Error::config("a field to be created has no name"));
        }
        if self.name.chars().count() > NAME_CHARS_MAX {
            return Err(Error::config(format!(
                "the name of the field `{}` has more than {NAME_CHARS_MAX} characters",
                self.name
            )));
        }
        if !self.application_type.can_be_created() {
            return Err(Error::config(format!(
                "the field `{}` cannot be created as {}: Emarsys lets programs create shorttext, longtext, \
                 largetext, numeric, date and url; create it by hand",
                self.name, self.application_type
            )));
        }
        Ok(())
    }
}

impl ApplicationType {
    /// Whether the API can create fields of this type.
    pub fn can_be_created(&self) -> bool {
        matches!(
            self,
            Self::ShortText | Self::LongText | Self::LargeText | Self::Numeric | Self::Date | Self::Url
        )
    }
}

impl Fields<'_> {
    /// All fields of the account (Emarsys API: List fields), in no particular order.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<Field>> {
        let List(fields) = self.0.send(&ListFields {}).await?;
        Ok(fields.into_iter().map(Field::from).collect())
    }

    /// Creates a field (Emarsys API: Create a field). If the error leaves it unknown whether it was created,
    /// [`list`](Self::list) tells.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the API cannot create such a field; else as
    /// [`Client::send`], with the codes 9002 (the name exists), 9003 (reserved) and 9004 (no slot left).
    pub async fn create(&self, field: &NewField) -> Result<FieldId> {
        field.check()?;
        self.0.send(&CreateField(field)).await.map(|created| created.id)
    }

    /// The choices of a single or multiple choice field (Emarsys API: List choices).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn choices(&self, field: FieldId) -> Result<Vec<Choice>> {
        let List(choices) = self.0.send(&ListChoices { field }).await?;
        Ok(choices
            .into_iter()
            .map(|ChoiceReply { id, choice }| Choice { id: id.get(), label: choice })
            .collect())
    }
}

#[derive(Serialize)]
struct ListFields {}

impl Request for ListFields {
    type Reply = List<FieldReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "field";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("field.list");
}

#[derive(Deserialize)]
struct FieldReply {
    id: FieldId,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    string_id: Option<String>,
    #[serde(default)]
    application_type: Option<String>,
}

impl From<FieldReply> for Field {
    fn from(field: FieldReply) -> Self {
        Self {
            id: field.id,
            name: field.name,
            string_id: field.string_id.filter(|id| !id.is_empty()),
            application_type: field.application_type.unwrap_or_default().into(),
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct CreateField<'a>(&'a NewField);

impl Request for CreateField<'_> {
    type Reply = Created;
    const METHOD: Method = Method::Post;
    const ENDPOINT: &'static str = "field";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("field.create");
}

#[derive(Deserialize)]
struct Created {
    id: FieldId,
}

#[derive(Serialize)]
struct ListChoices {
    field: FieldId,
}

impl Request for ListChoices {
    type Reply = List<ChoiceReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "field/{id}/choice";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("field.singlechoice.get or field.multichoice.list");

    fn path(&self) -> Cow<'_, str> {
        format!("field/{}/choice", self.field).into()
    }
}

#[derive(Deserialize)]
struct ChoiceReply {
    /// Choice ids are numbers or strings of digits, as field ids are.
    id: FieldId,
    #[serde(default)]
    choice: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Delivery, ErrorKind,
        emarsys::{
            Refusal,
            transport::fake::{Answer, client},
        },
    };

    #[tokio::test(start_paused = true)]
    async fn fields_are_read_in_every_form_they_are_printed_in() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":[
            {"id":3,"name":"Email","application_type":"longtext","string_id":"email"},
            {"id":"4711","name":null,"application_type":"hologram","string_id":""},
            {"id":12}]}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let fields = client.fields().list().await.unwrap();
        assert_eq!(fields[0].id, FieldId::EMAIL);
        assert_eq!(fields[0].name.as_deref(), Some("Email"));
        assert_eq!(fields[0].string_id.as_deref(), Some("email"));
        assert_eq!(fields[0].application_type, ApplicationType::LongText);
        assert_eq!(fields[1].application_type, ApplicationType::Other("hologram".to_owned()));
        assert_eq!((&fields[1].name, &fields[1].string_id), (&None, &None));
        assert_eq!(fields[2].application_type.as_str(), "");
        let sent = script.sent();
        assert_eq!((sent[0].method, sent[0].url.as_str()), ("GET", "https://api.emarsys.net/api/v2/field"));
        assert_eq!(sent[0].body, "");
    }

    #[test]
    fn every_type_is_read_as_it_is_written() {
        for name in [
            "shorttext",
            "longtext",
            "largetext",
            "numeric",
            "date",
            "birthdate",
            "url",
            "fax",
            "singlechoice",
            "multichoice",
            "interests",
            "special",
            "voucher",
            "hologram",
        ] {
            let kind = ApplicationType::from(name.to_owned());
            assert_eq!(kind.as_str(), name);
            assert_eq!(matches!(kind, ApplicationType::Other(_)), name == "hologram");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn field_is_created_with_name_and_type() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{"id":10601}}"#;
        let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, reply)]);
        let field = NewField::new("Loyalty points", ApplicationType::Numeric);
        assert_eq!(client.fields().create(&field).await.unwrap(), FieldId::new(10601));
        client.fields().create(&field.string_id("loyalty_points")).await.unwrap();
        let sent = script.sent();
        assert_eq!(sent[0].body, r#"{"name":"Loyalty points","application_type":"numeric"}"#);
        assert_eq!(
            sent[1].body,
            r#"{"name":"Loyalty points","application_type":"numeric","string_id":"loyalty_points"}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn field_that_the_api_cannot_create_is_refused_before_anything_is_sent() {
        let (client, script) = client([]);
        for field in [
            NewField::new("Level", ApplicationType::SingleChoice),
            NewField::new(" ", ApplicationType::Numeric),
            NewField::new("x".repeat(201), ApplicationType::Numeric),
        ] {
            let error = client.fields().create(&field).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Config, Delivery::NotSent));
        }
        assert!(script.sent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn missing_slots_are_told_by_the_code_under_either_status() {
        for status in [400, 500] {
            let reply = r#"{"replyCode":9004,"replyText":"No more slots to create the field","data":""}"#;
            let (client, _) = client([Answer::reply(status, reply)]);
            let error =
                client.fields().create(&NewField::new("x", ApplicationType::Numeric)).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Refused, Delivery::Refused));
            assert_eq!(error.cause::<Refusal>().unwrap().code, Some(9004));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn choices_have_id_and_label() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":[
            {"id":"1","choice":"Male","bit_position":null},{"id":2,"choice":"Female"}]}"#;
        let (client, script) = client([Answer::reply(200, reply)]);
        let choices = client.fields().choices(FieldId::GENDER).await.unwrap();
        assert_eq!(choices[0], Choice { id: 1, label: "Male".to_owned() });
        assert_eq!(choices[1], Choice { id: 2, label: "Female".to_owned() });
        assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/field/5/choice");
    }
}
