//! The open questions about the API, each with the answer that this sandbox gives.
//!
//! Sources disagree about these points, or say nothing. The defaults are the likeliest answers; a client that is to
//! survive the real service works with every other setting too.

use std::time::Duration;

/// How the sandbox answers where the documentation is silent or contradicts itself.
///
/// ```
/// use reverse_etl::emarsys::sandbox::{Duplicates, Switches};
///
/// let switches = Switches::default().duplicates(Duplicates::LastWins).request_error_status(200);
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent yes or no about the real service")]
pub struct Switches {
    pub(super) request_error_status: u16,
    pub(super) unknown_list_status: u16,
    pub(super) creation_error_status: u16,
    pub(super) delete_missing_status: u16,
    pub(super) exists_code: u16,
    pub(super) invalid_key: Scope,
    pub(super) unknown_field: Scope,
    pub(super) invalid_source: Scope,
    pub(super) duplicates: Duplicates,
    pub(super) email_match: EmailMatch,
    pub(super) error_body: ErrorBody,
    pub(super) too_large_body: ErrorBody,
    pub(super) read_delay: Duration,
    pub(super) deleted_counted: bool,
    pub(super) ids_in_order: bool,
    pub(super) empty_text_kept: bool,
    pub(super) key_names: bool,
    pub(super) missing_key_is_internal_id: bool,
    pub(super) email_unique_on_create: bool,
    pub(super) texts_checked: bool,
    pub(super) read_only_refused: bool,
    pub(super) dates_with_time: bool,
    pub(super) existing_members_counted: bool,
    pub(super) existing_joins_list: bool,
    pub(super) contact_ids_bare: bool,
    pub(super) deprecated_reads: bool,
    pub(super) query_without_return: bool,
    pub(super) query_pages_with_gaps: bool,
    pub(super) getdata_result_left_out: bool,
    pub(super) getdata_rows_in_order: bool,
    pub(super) empty_errors_shown: bool,
    pub(super) empty_objects_as_arrays: bool,
    pub(super) empty_arrays_as_objects: bool,
    pub(super) found_id_as_number: bool,
    pub(super) long_texts_cut: bool,
    pub(super) bearer_error_body: ErrorBody,
    pub(super) relational_body: RelationalBody,
    pub(super) relational_upsert_replaces: bool,
    pub(super) limit_headers: bool,
    pub(super) string_id_nine_digits: bool,
    pub(super) replays_refused: bool,
    pub(super) getdata_codes_as_text: bool,
    pub(super) segment_evaluation: Duration,
    pub(super) export_duration: Duration,
    pub(super) export_ready_for: Duration,
    pub(super) exports_kept: Duration,
    pub(super) export_header_counted: bool,
    pub(super) export_header_repeated: bool,
    pub(super) export_choice_ids: bool,
    pub(super) changes_only_of_email_and_opt_in: bool,
}

/// What one bad row or key brings down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// It is an entry of `data.errors` in a reply with status 200.
    Row,
    /// The whole request is refused, and nothing of it takes effect.
    Request,
}

/// What becomes of rows with the same key value in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicates {
    /// The first counts, the others are refused with 2010.
    FirstWins,
    /// Each is carried out, one after the other.
    LastWins,
}

/// When two e-mails are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmailMatch {
    /// If they differ in case at most.
    IgnoreCase,
    /// If they differ in case and in leading and trailing blanks at most.
    IgnoreCaseAndBlanks,
    /// If they are equal to the letter.
    Exact,
}

/// What an error that the gateway answers looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorBody {
    /// `{"replyCode":…,"replyText":…,"data":""}`, without `replyCode` where the documentation has none.
    Envelope,
    /// The text alone.
    Plain,
    /// `{"message":…}`
    Message,
}

/// What a call of relational data that succeeds answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelationalBody {
    /// The usual envelope, with the records as `data`.
    Envelope,
    /// `{}`, and a query an array of records.
    Object,
    /// Nothing, and a query an array of records.
    Empty,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            request_error_status: 400,
            unknown_list_status: 400,
            creation_error_status: 400,
            delete_missing_status: 404,
            exists_code: 2009,
            invalid_key: Scope::Row,
            unknown_field: Scope::Row,
            invalid_source: Scope::Row,
            duplicates: Duplicates::FirstWins,
            email_match: EmailMatch::IgnoreCase,
            error_body: ErrorBody::Envelope,
            too_large_body: ErrorBody::Plain,
            read_delay: Duration::ZERO,
            deleted_counted: true,
            ids_in_order: true,
            empty_text_kept: false,
            key_names: false,
            missing_key_is_internal_id: false,
            email_unique_on_create: true,
            texts_checked: false,
            read_only_refused: false,
            dates_with_time: false,
            existing_members_counted: true,
            existing_joins_list: true,
            contact_ids_bare: false,
            deprecated_reads: true,
            query_without_return: false,
            query_pages_with_gaps: false,
            getdata_result_left_out: false,
            getdata_rows_in_order: true,
            empty_errors_shown: false,
            empty_objects_as_arrays: false,
            empty_arrays_as_objects: false,
            found_id_as_number: false,
            long_texts_cut: false,
            bearer_error_body: ErrorBody::Envelope,
            relational_body: RelationalBody::Envelope,
            relational_upsert_replaces: false,
            limit_headers: true,
            string_id_nine_digits: false,
            replays_refused: false,
            getdata_codes_as_text: false,
            segment_evaluation: Duration::ZERO,
            export_duration: Duration::ZERO,
            export_ready_for: Duration::ZERO,
            exports_kept: Duration::MAX,
            export_header_counted: false,
            export_header_repeated: false,
            export_choice_ids: false,
            changes_only_of_email_and_opt_in: false,
        }
    }
}

impl Switches {
    /// The status of requests that are refused as a whole for what they say: 400 (default) or 200. It takes the place of
    /// every 400, also of one that another switch sets.
    pub fn request_error_status(mut self, status: u16) -> Self {
        self.request_error_status = status;
        self
    }

    /// The status of 2020, an unknown `contact_list_id`. Default 400.
    pub fn unknown_list_status(mut self, status: u16) -> Self {
        self.unknown_list_status = status;
        self
    }

    /// The status of 9004 and of 3001 to 3005, when a field or a list cannot be created: 400 (default) or 500.
    pub fn creation_error_status(mut self, status: u16) -> Self {
        self.creation_error_status = status;
        self
    }

    /// The status of deleting one contact that does not exist: 404 (default), 400 or 200.
    pub fn delete_missing_status(mut self, status: u16) -> Self {
        self.delete_missing_status = status;
        self
    }

    /// The code for a single contact that exists already: 2009 (default) or 2006.
    pub fn exists_code(mut self, code: u16) -> Self {
        self.exists_code = code;
        self
    }

    /// Where an invalid key field of a contact batch shows: as `<NO_KEY_ID>` among the errors of the rows (default),
    /// or as 2004 for the request.
    pub fn invalid_key(mut self, scope: Scope) -> Self {
        self.invalid_key = scope;
        self
    }

    /// What an unknown field id in a row brings down: the row with 2007 (default), or the request with 2006.
    pub fn unknown_field(mut self, scope: Scope) -> Self {
        self.unknown_field = scope;
        self
    }

    /// What a `source_id` that is none brings down, with 2013: the row (default) or the request.
    pub fn invalid_source(mut self, scope: Scope) -> Self {
        self.invalid_source = scope;
        self
    }

    /// What becomes of rows with the same key in one batch. Default [`Duplicates::FirstWins`].
    pub fn duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }

    /// When two e-mails are the same. Default [`EmailMatch::IgnoreCase`].
    pub fn email_match(mut self, email_match: EmailMatch) -> Self {
        self.email_match = email_match;
        self
    }

    /// The body of errors that have no code, such as 403 and 5xx, and of 429. Default [`ErrorBody::Envelope`].
    pub fn error_body(mut self, body: ErrorBody) -> Self {
        self.error_body = body;
        self
    }

    /// The body of 413, too many bytes. Default [`ErrorBody::Plain`].
    pub fn too_large_body(mut self, body: ErrorBody) -> Self {
        self.too_large_body = body;
        self
    }

    /// How long a new contact, list or member takes to show up in reads. Default none.
    pub fn read_delay(mut self, delay: Duration) -> Self {
        self.read_delay = delay;
        self
    }

    /// Whether a successful delete says how many contacts it deleted (default), or answers `{}`.
    pub fn deleted_counted(mut self, yes: bool) -> Self {
        self.deleted_counted = yes;
        self
    }

    /// Whether `data.ids` keeps the order of the request (default), or comes in another order.
    pub fn ids_in_order(mut self, yes: bool) -> Self {
        self.ids_in_order = yes;
        self
    }

    /// Whether a field cleared with `""` reads back as `""`; by default it reads back as null.
    pub fn empty_text_kept(mut self, yes: bool) -> Self {
        self.empty_text_kept = yes;
        self
    }

    /// Whether `key_id` may be a field's name or string id; by default that is 2004.
    pub fn key_names(mut self, yes: bool) -> Self {
        self.key_names = yes;
        self
    }

    /// Whether a missing key means the internal id in `checkids`, `getdata` and the list calls, as in 2016; by default
    /// it means field 3 everywhere.
    pub fn missing_key_is_internal_id(mut self, yes: bool) -> Self {
        self.missing_key_is_internal_id = yes;
        self
    }

    /// Whether a contact cannot be created with an e-mail that exists, also when another field is the key (default).
    pub fn email_unique_on_create(mut self, yes: bool) -> Self {
        self.email_unique_on_create = yes;
        self
    }

    /// Whether texts that are too long, and e-mails that cannot be any, are refused with 2007; by default they are
    /// accepted.
    pub fn texts_checked(mut self, yes: bool) -> Self {
        self.texts_checked = yes;
        self
    }

    /// Whether a read-only field in a row is refused with 2007; by default it is ignored.
    pub fn read_only_refused(mut self, yes: bool) -> Self {
        self.read_only_refused = yes;
        self
    }

    /// Whether dates may carry a time, as in 2016; by default only `YYYY-MM-DD` is accepted.
    pub fn dates_with_time(mut self, yes: bool) -> Self {
        self.dates_with_time = yes;
        self
    }

    /// Whether `inserted_contacts` and `deleted_contacts` count every contact found (default), or only those whose
    /// membership changed.
    pub fn existing_members_counted(mut self, yes: bool) -> Self {
        self.existing_members_counted = yes;
        self
    }

    /// Whether a contact that a create refuses as existing is put into the request's `contact_list_id` all the same:
    /// yes (default), as the list is said to get everybody whom the request identifies or creates. With several
    /// contacts of one key value nobody is identified.
    pub fn existing_joins_list(mut self, yes: bool) -> Self {
        self.existing_joins_list = yes;
        self
    }

    /// Whether `contactIds` answers without the envelope. Default no.
    pub fn contact_ids_bare(mut self, yes: bool) -> Self {
        self.contact_ids_bare = yes;
        self
    }

    /// Whether `contact/query` leaves the contacts without a value (`excludeempty`) out of pages that were cut with them,
    /// so that a page in the middle may be short or empty. Default no: it leaves them out first.
    pub fn query_pages_with_gaps(mut self, yes: bool) -> Self {
        self.query_pages_with_gaps = yes;
        self
    }

    /// Whether `contact/query` without `return` looks up the id of one contact, as `GET contact` does; by default that
    /// is 2014.
    pub fn query_without_return(mut self, yes: bool) -> Self {
        self.query_without_return = yes;
        self
    }

    /// Whether `getdata` has no `result` when nobody is found, as in 2016; by default it is `false`.
    pub fn getdata_result_left_out(mut self, yes: bool) -> Self {
        self.getdata_result_left_out = yes;
        self
    }

    /// Whether the rows of `getdata` keep the order of the request (default), or come in another order.
    pub fn getdata_rows_in_order(mut self, yes: bool) -> Self {
        self.getdata_rows_in_order = yes;
        self
    }

    /// Whether a contact batch without any failure says `"errors":[]`; by default it has no `errors` at all.
    pub fn empty_errors_shown(mut self, yes: bool) -> Self {
        self.empty_errors_shown = yes;
        self
    }

    /// Whether an empty object is printed as `[]` also where it is `{}` by default, such as the `data` of a list that
    /// was deleted. Empty `errors` are `[]` in any case, unless
    /// [`empty_arrays_as_objects`](Self::empty_arrays_as_objects) says otherwise. Not for relational data.
    pub fn empty_objects_as_arrays(mut self, yes: bool) -> Self {
        self.empty_objects_as_arrays = yes;
        self
    }

    /// Whether `data` and its members are printed as `{}` where they are `[]` by default: lists of rows or ids that
    /// are empty, and empty `errors`. What lies deeper stays as it is. Default no; not for relational data.
    pub fn empty_arrays_as_objects(mut self, yes: bool) -> Self {
        self.empty_arrays_as_objects = yes;
        self
    }

    /// Whether `GET contact` answers the id as a number; by default it is a string.
    pub fn found_id_as_number(mut self, yes: bool) -> Self {
        self.found_id_as_number = yes;
        self
    }

    /// Whether a text that is too long for its field is cut; by default it is kept as it is. See also
    /// [`texts_checked`](Self::texts_checked), which goes first.
    pub fn long_texts_cut(mut self, yes: bool) -> Self {
        self.long_texts_cut = yes;
        self
    }

    /// The body of 401 on v3, for a token that is not good. Default [`ErrorBody::Envelope`].
    pub fn bearer_error_body(mut self, body: ErrorBody) -> Self {
        self.bearer_error_body = body;
        self
    }

    /// What a call of relational data that succeeds answers. Default [`RelationalBody::Envelope`].
    pub fn relational_body(mut self, body: RelationalBody) -> Self {
        self.relational_body = body;
        self
    }

    /// Whether an upsert of relational data replaces a record that exists; by default it changes the columns that were
    /// sent.
    pub fn relational_upsert_replaces(mut self, yes: bool) -> Self {
        self.relational_upsert_replaces = yes;
        self
    }

    /// Whether the deprecated `contactlist/{id}/contacts` and `…/contacts/data` still answer (default), or are gone
    /// with 404.
    pub fn deprecated_reads(mut self, yes: bool) -> Self {
        self.deprecated_reads = yes;
        self
    }

    /// Whether replies carry the limit headers (default).
    pub fn limit_headers(mut self, yes: bool) -> Self {
        self.limit_headers = yes;
        self
    }

    /// Whether the string id of a new field must be nine digits, as an old error text demands; by default it is
    /// 1 to 32 of `a-z`, `0-9` and `_`.
    pub fn string_id_nine_digits(mut self, yes: bool) -> Self {
        self.string_id_nine_digits = yes;
        self
    }

    /// Whether a WSSE header is refused when it comes a second time. Default no.
    pub fn replays_refused(mut self, yes: bool) -> Self {
        self.replays_refused = yes;
        self
    }

    /// Whether `errorCode` in `getdata` is a string; by default it is a number.
    pub fn getdata_codes_as_text(mut self, yes: bool) -> Self {
        self.getdata_codes_as_text = yes;
        self
    }

    /// How long it takes to evaluate a segment, from the first request that needs it: until then its contacts and
    /// their count are answered with 202, and its runs are waiting. Default none.
    pub fn segment_evaluation(mut self, duration: Duration) -> Self {
        self.segment_evaluation = duration;
        self
    }

    /// How long an export takes: it is scheduled during the first half, and in progress during the second. Default
    /// none.
    pub fn export_duration(mut self, duration: Duration) -> Self {
        self.export_duration = duration;
        self
    }

    /// How long an export whose file is made shows the status `ready` before it shows `done`; the file can be
    /// downloaded with either. Default none, so that nobody sees `ready`.
    pub fn export_ready_for(mut self, duration: Duration) -> Self {
        self.export_ready_for = duration;
        self
    }

    /// How long the file of a finished export is kept; after that it is gone with 410. Default for ever.
    pub fn exports_kept(mut self, duration: Duration) -> Self {
        self.exports_kept = duration;
        self
    }

    /// Whether the header of an export is a line like others for `offset` and `limit`; by default they count contacts
    /// alone.
    pub fn export_header_counted(mut self, yes: bool) -> Self {
        self.export_header_counted = yes;
        self
    }

    /// Whether every page of an export begins with the header, or only the first (default).
    pub fn export_header_repeated(mut self, yes: bool) -> Self {
        self.export_header_repeated = yes;
        self
    }

    /// Whether an export shows choices by id, and the opt-in as `1` or `2`; by default it shows the labels of choices,
    /// and `True` or `False`.
    pub fn export_choice_ids(mut self, yes: bool) -> Self {
        self.export_choice_ids = yes;
        self
    }

    /// Whether only a change of e-mail or opt-in makes a contact part of an export of changes; by default any change
    /// does.
    pub fn changes_only_of_email_and_opt_in(mut self, yes: bool) -> Self {
        self.changes_only_of_email_and_opt_in = yes;
        self
    }
}
