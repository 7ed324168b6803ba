//! The header of a state: what holds for all of its rows.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{Secret, Slot},
    host::Host,
    record::FieldName,
};

/// What holds for all rows of a state: its version, what it belongs to, its slots, and who writes to it.
///
/// A store keeps it as the bytes that [`to_bytes`](Self::to_bytes) gives.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub(crate) format: u32,
    pub(crate) version: u64,
    pub(crate) identity: String,
    pub(crate) check: Bytes<16>,
    /// The secret, if it was generated; a supplied one is never stored.
    pub(crate) secret: Option<Bytes<32>>,
    pub(crate) slots: Slots,
    /// Rows of which it is unknown whether they exist; while there are any, planning looks at every row.
    pub(crate) in_doubt: u64,
    /// Rows that have a record.
    pub(crate) rows: u64,
    /// Every record keeps its key sealed, since the sync removes rows that left the source.
    pub(crate) seals: bool,
    pub(crate) last_writer: Option<RunId>,
    pub(crate) lease: Option<Lease>,
}

/// A run, told apart from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RunId(Bytes<16>);

impl RunId {
    pub(crate) fn generate(host: &dyn Host) -> Result<Self> {
        let mut bytes = [0; 16];
        host.random(&mut bytes)?;
        Ok(Self(Bytes(bytes)))
    }
}

/// The right of one run to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) run: RunId,
    pub(crate) holder: String,
    pub(crate) since: SystemTime,
    pub(crate) until: SystemTime,
}

/// Which slot stands for which field; a slot that was given up is never used again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slots {
    next: u32,
    active: Vec<SlotOf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotOf {
    pub(crate) slot: Slot,
    pub(crate) field: FieldName,
    /// The field's id at the destination, once it exists there.
    pub(crate) id: Option<String>,
}

impl Slots {
    /// The slots after `fields` (name, and id where the field exists) are the ones that are mapped, and the slot of
    /// each of them. A field that is gone loses its slot, and one that was made anew is another field.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the state has used up its 65,536 slots.
    pub(crate) fn assigned(&self, fields: &[(FieldName, Option<String>)]) -> Result<(Self, Vec<Slot>)> {
        let mut slots = Self { next: self.next, active: Vec::with_capacity(fields.len()) };
        for (field, id) in fields {
            let slot = match self.active.iter().find(|known| known.is(field, id.as_deref())) {
                Some(known) => known.slot,
                None => slots.fresh()?,
            };
            slots.active.push(SlotOf { slot, field: field.clone(), id: id.clone() });
        }
        let assigned = slots.active.iter().map(|active| active.slot).collect();
        slots.active.sort_by_key(|active| active.slot);
        Ok((slots, assigned))
    }

    fn fresh(&mut self) -> Result<Slot> {
        let slot = Slot::try_from(self.next).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                "this state has used its 65,536 slots for fields: start a new state, whose first run sends every row",
            )
        })?;
        self.next += 1;
        Ok(slot)
    }

    /// The slots in use and their fields, in ascending order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &SlotOf> {
        self.active.iter()
    }

    pub(crate) fn fields_mut(&mut self) -> impl Iterator<Item = &mut SlotOf> {
        self.active.iter_mut()
    }

    pub(crate) fn is_active(&self, slot: Slot) -> bool {
        self.active.binary_search_by_key(&slot, |active| active.slot).is_ok()
    }
}

impl SlotOf {
    /// A field with an id is its id, however it is spelled; one that did not exist yet is its name.
    fn is(&self, field: &FieldName, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(known), Some(id)) => known == id,
            (None, _) => self.field == *field,
            (Some(_), None) => false,
        }
    }
}

impl Header {
    const FORMAT: u32 = 1;

    /// The header of a state that nothing was written to yet.
    pub(crate) fn new(identity: String, secret: &Secret, generated: bool) -> Result<Self> {
        Ok(Self {
            format: Self::FORMAT,
            version: 0,
            identity,
            check: Bytes(secret.check_value()?),
            secret: generated.then(|| Bytes(secret.to_bytes())),
            slots: Slots::default(),
            in_doubt: 0,
            rows: 0,
            seals: false,
            last_writer: None,
            lease: None,
        })
    }

    /// The number of commits that the state has taken.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the state belongs to.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The same header without a lease.
    ///
    /// For a store whose own lock dies with its process: a lease found when the lock is taken belongs to nobody any
    /// more.
    #[must_use]
    pub fn without_lease(mut self) -> Self {
        self.lease = None;
        self
    }

    /// The bytes that a store keeps.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if there is no memory for them.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Io, "the state's header cannot be written").with_source(error)
        })
    }

    /// The header from the bytes that [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`] if they are not a header of a format that this version knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).ok().filter(|header: &Self| header.format == Self::FORMAT).ok_or_else(|| {
            Error::new(
                ErrorKind::StateDamaged,
                "the state's header cannot be read: the state was cut, altered, or written by a newer version; start a new state, whose first run sends every row",
            )
        })
    }

    /// The secret of the state: the one it stores, or the one supplied, which must be the one it was made with.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`] if there is none, or another one.
    pub(crate) fn secret(&self, supplied: Option<&Secret>) -> Result<Secret> {
        let secret = match (supplied, &self.secret) {
            (Some(supplied), _) => supplied.clone(),
            (None, Some(stored)) => Secret::new(stored.0),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::StateDamaged,
                    "this state was made with a secret of the caller's: supply the same one",
                ));
            }
        };
        if secret.check_value()? == self.check.0 {
            return Ok(secret);
        }
        Err(Error::new(
            ErrorKind::StateDamaged,
            "this state was made with another secret: supply that one, or none if it was generated",
        ))
    }

    /// Refuses a state that belongs to another sync.
    ///
    /// # Errors
    /// [`ErrorKind::StateDamaged`] naming both.
    pub(crate) fn belongs_to(&self, identity: &str) -> Result<()> {
        if self.identity == identity {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::StateDamaged,
            format!(
                "this state belongs to the sync `{}`, and the sync at hand is `{identity}`: use a state of its own",
                self.identity
            ),
        ))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("version", &self.version)
            .field("identity", &self.identity)
            .field("in_doubt", &self.in_doubt)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Refuses whoever is not its holder while it lasts.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], naming the holder and for how long it has been holding the state.
    pub(crate) fn admits(&self, run: RunId, now: SystemTime) -> Result<()> {
        if self.run == run || self.until <= now {
            return Ok(());
        }
        let age = now.duration_since(self.since).unwrap_or_default();
        let left = self.until.duration_since(now).unwrap_or_default() + Duration::from_secs(1);
        Err(Error::new(
            ErrorKind::Busy,
            format!(
                "another run ({}) has held this state for {} s: wait for its end; if it is dead, its hold ends in {} s",
                self.holder,
                age.as_secs(),
                left.as_secs()
            ),
        ))
    }
}

/// Bytes that stand as hexadecimal text in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(&self.0);
        }
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; N];
        if !deserializer.is_human_readable() {
            let read = <&[u8]>::deserialize(deserializer)?;
            return read
                .try_into()
                .map(Self)
                .map_err(|_| serde::de::Error::custom("another number of bytes"));
        }
        let text = String::deserialize(deserializer)?;
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, Option<&str>)]) -> Vec<(FieldName, Option<String>)> {
        fields.iter().map(|(name, id)| ((*name).into(), id.map(str::to_owned))).collect()
    }

    #[test]
    fn a_field_keeps_its_slot_whatever_the_order_and_the_spelling() {
        let (slots, first) =
            Slots::default().assigned(&fields(&[("Points", Some("71")), ("City", Some("11"))])).unwrap();
        let (_, again) = slots.assigned(&fields(&[("11", Some("11")), ("Points", Some("71"))])).unwrap();
        assert_eq!((first, again), (vec![0, 1], vec![1, 0]));
    }

    #[test]
    fn a_field_that_was_made_anew_gets_a_new_slot() {
        let (slots, _) = Slots::default().assigned(&fields(&[("Points", Some("71"))])).unwrap();
        let (_, remade) = slots.assigned(&fields(&[("Points", Some("72"))])).unwrap();
        let (_, deleted) = slots.assigned(&fields(&[("Points", None)])).unwrap();
        assert_eq!((remade, deleted), (vec![1], vec![1]));
    }

    #[test]
    fn a_field_that_comes_to_exist_keeps_the_slot_it_had_by_name() {
        let (slots, _) = Slots::default().assigned(&fields(&[("Points", None)])).unwrap();
        let (_, created) = slots.assigned(&fields(&[("Points", Some("71"))])).unwrap();
        assert_eq!(created, [0]);
    }

    #[test]
    fn a_slot_that_was_given_up_is_never_used_again() {
        let (slots, _) = Slots::default().assigned(&fields(&[("Points", Some("71"))])).unwrap();
        let (slots, _) = slots.assigned(&[]).unwrap();
        assert!(!slots.is_active(0));
        let (_, mapped_again) = slots.assigned(&fields(&[("Points", Some("71"))])).unwrap();
        assert_eq!(mapped_again, [1]);
    }

    #[test]
    fn a_state_refuses_another_secret_and_another_sync() {
        let header = Header::new("crm/people".into(), &Secret::new([1; 32]), false).unwrap();
        assert!(header.secret(Some(&Secret::new([1; 32]))).is_ok());
        assert_eq!(header.secret(Some(&Secret::new([2; 32]))).unwrap_err().kind(), ErrorKind::StateDamaged);
        assert_eq!(header.secret(None).unwrap_err().kind(), ErrorKind::StateDamaged);
        assert!(header.belongs_to("crm/people").is_ok());
        assert_eq!(header.belongs_to("crm/others").unwrap_err().kind(), ErrorKind::StateDamaged);
    }

    #[test]
    fn a_header_survives_its_bytes_and_only_a_generated_secret_is_in_them() {
        let secret = Secret::new([0xab; 32]);
        for generated in [false, true] {
            let header = Header::new("crm/people".into(), &secret, generated).unwrap();
            let bytes = header.to_bytes().unwrap();
            assert_eq!(Header::from_bytes(&bytes).unwrap(), header);
            assert_eq!(String::from_utf8(bytes).unwrap().contains(&"ab".repeat(32)), generated);
        }
    }
}
