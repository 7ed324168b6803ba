//! Contact fields (Emarsys API: Fields).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    client::Client,
    ids::FieldId,
    path::Path,
    reply::{self, Ignored, KeyMap, List},
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
    /// Its name as people see it, in the language that was asked for, which is English if none was.
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

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.language])
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

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.field])
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

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.field, &self.language])
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

    fn path(&self) -> Path {
        let fields: Vec<String> = self.fields.iter().map(FieldId::to_string).collect();
        let path = Path::fill(Self::ENDPOINT, &[]).query("fields", fields.join(","));
        match self.language {
            Some(language) => path.query("language", language),
            None => path,
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

    fn path(&self) -> Path {
        Path::fill(Self::ENDPOINT, &[&self.field])
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
mod tests;
