//! Contact fields (Emarsys API: Fields).

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::Client,
    ids::FieldId,
    reply::{self, Ignored, KeyMap, List},
    request::{Effect, Method, Path, Request},
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
    /// What people see, in the language that was asked for.
    pub label: String,
    /// The place of the choice in Emarsys' own storage of a multiple choice, if the reply has it. It is not what is
    /// sent as the value.
    pub bit_position: Option<u32>,
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
    /// All fields of the account with their names in English (Emarsys API: List fields), in no particular order.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn list(&self) -> Result<Vec<Field>> {
        self.read(ListFields {}).await
    }

    /// All fields of the account with their names in a language, such as `de` (Emarsys API: List fields).
    ///
    /// # Errors
    /// As [`Client::send`], with code 1002 if the language is unknown.
    pub async fn list_in(&self, language: &str) -> Result<Vec<Field>> {
        self.read(ListFieldsIn { language }).await
    }

    async fn read<R: Request<Reply = List<FieldReply>>>(&self, request: R) -> Result<Vec<Field>> {
        let List(fields) = self.0.send(&request).await?;
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

    /// Deletes a field **with all its values**, for good (Emarsys API: Delete a field).
    ///
    /// # Errors
    /// As [`Client::send`]. Emarsys refuses with 263 (a system field), 9006 (a voucher), 257 and 259 to 265 (the field
    /// is used by a form, an export, a segment, an import or a program, or belongs to somebody else), and with status
    /// 404 if there is no such field.
    pub async fn delete(&self, field: FieldId) -> Result<()> {
        self.0.send(&DeleteField { field }).await.map(|Ignored| ())
    }

    /// The choices of a single or multiple choice field, with labels in English (Emarsys API: List choices).
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn choices(&self, field: FieldId) -> Result<Vec<Choice>> {
        let List(choices) = self.0.send(&ListChoices { field }).await?;
        Ok(choices.into_iter().map(Choice::from).collect())
    }

    /// The choices of a field, with labels in a language, such as `de` (Emarsys API: List choices).
    ///
    /// # Errors
    /// As [`Client::send`], with code 1002 if the language is unknown.
    pub async fn choices_in(&self, field: FieldId, language: &str) -> Result<Vec<Choice>> {
        let List(choices) = self.0.send(&ListChoicesIn { field, language }).await?;
        Ok(choices.into_iter().map(Choice::from).collect())
    }

    /// The choices of several fields in one request, with labels in a language or else in English (Emarsys API: List
    /// choices of several fields). A field that the reply leaves out has none.
    ///
    /// # Errors
    /// As [`Client::send`], with code 1002 if the language is unknown.
    pub async fn choices_of(
        &self,
        fields: &[FieldId],
        language: Option<&str>,
    ) -> Result<BTreeMap<FieldId, Vec<Choice>>> {
        if fields.is_empty() {
            return Ok(BTreeMap::new());
        }
        let KeyMap(choices) = self.0.send(&ListManyChoices { fields, language }).await?;
        let known = choices.into_iter().filter_map(|(field, List(choices))| {
            Some((field.parse().ok()?, choices.into_iter().map(Choice::from).collect()))
        });
        Ok(known.collect())
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

#[derive(Serialize)]
struct ListFieldsIn<'a> {
    language: &'a str,
}

impl Request for ListFieldsIn<'_> {
    type Reply = List<FieldReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "field/translate/{language}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("field.list");

    fn path(&self) -> Cow<'_, str> {
        Path::new(&[&"field", &"translate", &self.language]).into()
    }
}

#[derive(Deserialize)]
struct FieldReply {
    id: FieldId,
    #[serde(default, deserialize_with = "reply::optional_text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    string_id: Option<String>,
    #[serde(default, deserialize_with = "reply::optional_text")]
    application_type: Option<String>,
}

impl From<FieldReply> for Field {
    fn from(field: FieldReply) -> Self {
        Self {
            id: field.id,
            name: field.name,
            string_id: field.string_id,
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

#[derive(Serialize)]
struct ListChoicesIn<'a> {
    field: FieldId,
    language: &'a str,
}

impl Request for ListChoicesIn<'_> {
    type Reply = List<ChoiceReply>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "field/{id}/choice/translate/{language}";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("field.singlechoice.get or field.multichoice.list");

    fn path(&self) -> Cow<'_, str> {
        Path::new(&[&"field", &self.field, &"choice", &"translate", &self.language]).into()
    }
}

#[derive(Serialize)]
struct ListManyChoices<'a> {
    fields: &'a [FieldId],
    language: Option<&'a str>,
}

impl Request for ListManyChoices<'_> {
    type Reply = KeyMap<List<ChoiceReply>>;
    const METHOD: Method = Method::Get;
    const ENDPOINT: &'static str = "field/choices";
    const EFFECT: Effect = Effect::Read;
    const PERMISSION: Option<&'static str> = Some("field.singlechoice.get or field.multichoice.list");

    fn path(&self) -> Cow<'_, str> {
        let fields: Vec<String> = self.fields.iter().map(FieldId::to_string).collect();
        let path = Path::new(&[&"field", &"choices"]).query("fields", fields.join(","));
        match self.language {
            Some(language) => path.query("language", language).into(),
            None => path.into(),
        }
    }
}

#[derive(Serialize)]
struct DeleteField {
    field: FieldId,
}

impl Request for DeleteField {
    type Reply = Ignored;
    const METHOD: Method = Method::Delete;
    const ENDPOINT: &'static str = "field/{id}";
    const EFFECT: Effect = Effect::Write;
    const PERMISSION: Option<&'static str> = Some("field.delete");

    fn path(&self) -> Cow<'_, str> {
        Path::new(&[&"field", &self.field]).into()
    }
}

#[derive(Deserialize)]
struct ChoiceReply {
    /// Choice ids are numbers or strings of digits, as field ids are.
    id: FieldId,
    #[serde(default, deserialize_with = "reply::optional_text")]
    choice: Option<String>,
    /// Null, a number or a string.
    #[serde(default)]
    bit_position: Value,
}

impl From<ChoiceReply> for Choice {
    fn from(choice: ChoiceReply) -> Self {
        Self {
            id: choice.id.get(),
            label: choice.choice.unwrap_or_default(),
            bit_position: reply::number(&choice.bit_position).and_then(|position| position.try_into().ok()),
        }
    }
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
        assert_eq!(choices[0], Choice { id: 1, label: "Male".to_owned(), bit_position: None });
        assert_eq!(choices[1], Choice { id: 2, label: "Female".to_owned(), bit_position: None });
        assert_eq!(script.sent()[0].url, "https://api.emarsys.net/api/v2/field/5/choice");
    }

    #[tokio::test(start_paused = true)]
    async fn choices_of_several_fields_come_by_field_in_the_language_asked_for() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{
            "5":[{"id":"1","choice":"Herr","bit_position":"3"}],"9":[{"id":4,"choice":"Dr.","bit_position":0}]}}"#;
        let none = r#"{"replyCode":0,"replyText":"OK","data":[]}"#;
        let (client, script) = client([Answer::reply(200, reply), Answer::reply(200, none)]);
        let fields = [FieldId::GENDER, FieldId::TITLE];
        let choices = client.fields().choices_of(&fields, Some("de")).await.unwrap();
        assert_eq!(
            choices[&FieldId::GENDER],
            [Choice { id: 1, label: "Herr".to_owned(), bit_position: Some(3) }]
        );
        assert_eq!(choices[&FieldId::TITLE][0].bit_position, Some(0));
        assert!(client.fields().choices_of(&fields, None).await.unwrap().is_empty());
        assert!(client.fields().choices_of(&[], None).await.unwrap().is_empty());
        let urls: Vec<_> = script.sent().into_iter().map(|sent| sent.url).collect();
        let base = "https://api.emarsys.net/api/v2/field/choices?fields=5%2C9";
        assert_eq!(urls, [format!("{base}&language=de"), base.to_owned()]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_and_choices_are_read_in_a_language() {
        let fields = r#"{"replyCode":0,"replyText":"OK","data":[{"id":1,"name":"Vorname"}]}"#;
        let choices = r#"{"replyCode":0,"replyText":"OK","data":[{"id":"1","choice":"Herr"}]}"#;
        let unknown = r#"{"replyCode":1002,"replyText":"Invalid language code","data":""}"#;
        let (client, script) =
            client([Answer::reply(200, fields), Answer::reply(200, choices), Answer::reply(400, unknown)]);
        assert_eq!(client.fields().list_in("de").await.unwrap()[0].name.as_deref(), Some("Vorname"));
        assert_eq!(client.fields().choices_in(FieldId::SALUTATION, "de").await.unwrap()[0].label, "Herr");
        let error = client.fields().list_in("../field").await.unwrap_err();
        assert_eq!(error.cause::<Refusal>().unwrap().code, Some(1002));
        let urls: Vec<_> = script.sent().into_iter().map(|sent| sent.url).collect();
        assert_eq!(
            urls,
            ["field/translate/de", "field/46/choice/translate/de", "field/translate/..%2Ffield"]
                .map(|path| format!("https://api.emarsys.net/api/v2/{path}"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn field_is_deleted_or_the_code_says_why_not() {
        let (client, script) = client([
            Answer::reply(200, r#"{"replyCode":0,"replyText":"OK","data":""}"#),
            Answer::reply(
                400,
                r#"{"replyCode":263,"replyText":"System fields cannot be deleted or edited.","data":""}"#,
            ),
            Answer::reply(404, r#"{"replyText":"No such field"}"#),
        ]);
        client.fields().delete(FieldId::new(10601)).await.unwrap();
        let mut codes = Vec::new();
        for field in [FieldId::EMAIL, FieldId::new(999)] {
            let error = client.fields().delete(field).await.unwrap_err();
            let refusal = error.cause::<Refusal>().unwrap();
            codes.push((refusal.status, refusal.code));
        }
        assert_eq!(codes, [(400, Some(263)), (404, None)]);
        let sent = script.sent();
        assert_eq!(
            (sent[0].method, sent[0].url.as_str()),
            ("DELETE", "https://api.emarsys.net/api/v2/field/10601")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn choices_that_are_numbers_or_without_a_label_are_read() {
        let reply = r#"{"replyCode":0,"replyText":"OK","data":{
            "1":{"id":"1","choice":0,"bit_position":""},"2":{"id":2,"choice":null,"bit_position":"7"}}}"#;
        let (client, _) = client([Answer::reply(200, reply)]);
        let choices = client.fields().choices(FieldId::CHILDREN).await.unwrap();
        assert_eq!(choices[0], Choice { id: 1, label: "0".to_owned(), bit_position: None });
        assert_eq!(choices[1], Choice { id: 2, label: String::new(), bit_position: Some(7) });
    }
}
