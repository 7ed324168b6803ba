use super::*;

const ROW: RowFingerprint = RowFingerprint::from_u64(99);
const WANTED: [(Slot, u64); 2] = [(0, 10), (1, 11)];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn sending(operation: Operation, fields: &[(Slot, u64)]) -> Sending<'_> {
    Sending { operation, fields, wanted: &WANTED, row: ROW, sent: 7 }
}

fn settled() -> RowRecord {
    let mut record = RowRecord::default();
    let all = sending(Operation::Update, &WANTED);
    record.announced(&all, at(100), None);
    record.applied(&all);
    record
}

/// A record whose insert into `list` never got an answer.
fn in_doubt(list: &str) -> RowRecord {
    let mut record = RowRecord::default();
    record.announced(&sending(Operation::Insert, &WANTED), at(100), Some(list));
    record
}

fn place(record: &RowRecord) -> Option<&str> {
    match record.mark().map(Mark::doubt) {
        Some(Doubt::Exists { place }) => place.as_deref(),
        _ => None,
    }
}

#[test]
fn announcing_forgets_the_fields_sent_and_keeps_the_others() {
    let mut record = settled();
    record.announced(&sending(Operation::Update, &[(1, 12)]), at(200), None);
    assert_eq!((record.row(), record.field(0), record.field(1)), (None, Some(10), None));
    assert_eq!(record.mark().map(Mark::doubt), Some(&Doubt::Sent));
}

#[test]
fn announcing_a_removal_forgets_all_fields_and_doubts_that_the_row_exists() {
    let mut record = settled();
    record.announced(&sending(Operation::Remove, &[]), at(200), None);
    assert_eq!((record.field(0), record.field(1)), (None, None));
    assert!(record.is_in_doubt());
}

#[test]
fn announcing_an_upsert_doubts_that_the_row_exists_only_if_it_is_not_known() {
    let mut unknown = RowRecord::default();
    unknown.announced(&sending(Operation::Upsert, &WANTED), at(100), None);
    assert!(unknown.is_in_doubt());
    let mut known = settled();
    known.announced(&sending(Operation::Upsert, &WANTED), at(200), None);
    assert!(!known.is_in_doubt());
}

#[test]
fn announcing_an_update_keeps_the_doubt_and_its_place() {
    let mut record = in_doubt("Customers");
    record.announced(&sending(Operation::Update, &WANTED), at(200), None);
    assert_eq!(place(&record), Some("Customers"));
}

#[test]
fn announcing_an_insert_moves_the_doubt_to_its_own_place() {
    let mut record = in_doubt("Customers");
    record.announced(&sending(Operation::Insert, &WANTED), at(200), Some("Others"));
    assert_eq!(place(&record), Some("Others"));
}

#[test]
fn announcing_never_shortens_the_wait_for_late_requests() {
    let mut record = in_doubt("Customers");
    record.announced(&sending(Operation::Update, &WANTED), at(50), None);
    assert_eq!(record.mark().map(Mark::until), Some(at(100)));
}

#[test]
fn an_acknowledged_row_is_settled_known_and_ours() {
    let record = settled();
    assert_eq!((record.row(), record.hot()), (Some(ROW), ROW));
    assert!(record.is_known() && record.is_ours() && record.mark().is_none());
}

#[test]
fn a_row_of_which_a_field_is_not_acknowledged_is_not_settled() {
    let mut record = RowRecord::default();
    let part = sending(Operation::Update, &WANTED[..1]);
    record.announced(&part, at(100), None);
    record.applied(&part);
    assert_eq!((record.row(), record.hot()), (None, RowFingerprint::LOAD));
}

#[test]
fn a_rejected_row_stays_forgotten_and_is_held_until_its_back_off_ends() {
    let mut record = settled();
    let change = sending(Operation::Update, &[(1, 12)]);
    let prior = record.announced(&change, at(200), None);
    record.rejected(&change, "2007", prior, at(150), Backoff::default());
    assert_eq!((record.held(), record.field(1), record.mark()), (Some(Held::Rejected), None, None));
    let rejection = record.rejection().unwrap();
    assert!(rejection.holds_back(7, false, at(150 + 3_599)));
    assert!(!rejection.holds_back(7, false, at(150 + 3_600)));
    assert!(!rejection.holds_back(8, false, at(151)), "other values are worth a try at once");
    assert!(!rejection.holds_back(7, true, at(151)), "a removal is another thing");
}

#[test]
fn the_back_off_doubles_with_each_rejection_of_the_same_values_up_to_its_end() {
    let backoff = Backoff::default();
    let hours: Vec<_> = [1, 2, 3, 8, 9, 100].map(|attempts| backoff.pause(attempts).as_secs() / 3600).into();
    assert_eq!(hours, [1, 2, 4, 128, 168, 168]);
}

#[test]
fn attempts_start_again_when_other_values_are_rejected() {
    let mut record = RowRecord::default();
    for (sent, attempts) in [(7, 1), (7, 2), (8, 1)] {
        let change = Sending { sent, ..sending(Operation::Update, &WANTED) };
        let prior = record.announced(&change, at(100), None);
        record.rejected(&change, "2007", prior, at(90), Backoff::default());
        assert_eq!(record.rejection().unwrap().attempts(), attempts);
    }
}

#[test]
fn a_rejection_does_not_end_an_earlier_doubt() {
    let mut record = in_doubt("Customers");
    let change = sending(Operation::Update, &WANTED);
    let prior = record.announced(&change, at(200), None);
    record.rejected(&change, "2007", prior, at(150), Backoff::default());
    assert_eq!(place(&record), Some("Customers"));
}

#[test]
fn a_rejected_insert_leaves_no_doubt_of_its_own() {
    let mut record = RowRecord::default();
    let change = sending(Operation::Insert, &WANTED);
    let prior = record.announced(&change, at(100), Some("Customers"));
    record.rejected(&change, "2007", prior, at(90), Backoff::default());
    assert_eq!(record.mark(), None);
}

#[test]
fn a_rejected_removal_stays_in_doubt() {
    let mut record = settled();
    let removal = sending(Operation::Remove, &[]);
    let prior = record.announced(&removal, at(200), None);
    record.rejected(&removal, "15012", prior, at(150), Backoff::default());
    assert!(record.is_in_doubt());
}

#[test]
fn a_row_that_nobody_knows_is_missing_and_nothing_is_remembered_of_it() {
    let mut record = settled();
    record.announced(&sending(Operation::Update, &[(1, 12)]), at(200), None);
    record.not_found();
    assert_eq!((record.held(), record.field(0), record.mark()), (Some(Held::Missing), None, None));
    assert!(!record.is_known() && !record.is_ours());
    assert_eq!(record.hot(), RowFingerprint::MISSING);
}

#[test]
fn a_missing_row_keeps_its_rejection_and_its_back_off() {
    let mut record = RowRecord::default();
    let insert = sending(Operation::Insert, &WANTED);
    let prior = record.announced(&insert, at(100), None);
    record.rejected(&insert, "2007", prior, at(90), Backoff::default());
    record.announced(&sending(Operation::Update, &WANTED), at(300), None);
    record.not_found();
    assert!(record.rejection().unwrap().holds_back(7, false, at(91)));
    assert_eq!(record.hot(), RowFingerprint::LOAD, "the back-off is in the record");
}

#[test]
fn an_unattempted_row_has_the_mark_of_before_and_stays_forgotten() {
    let mut record = in_doubt("Customers");
    let before = record.mark().cloned();
    let prior = record.announced(&sending(Operation::Update, &WANTED), at(200), None);
    record.not_attempted(prior);
    assert_eq!((record.mark(), record.field(0)), (before.as_ref(), None));
}

#[test]
fn a_row_in_back_off_that_is_resolved_by_its_key_alone_stays_rejected() {
    let mut record = in_doubt("Customers");
    let change = sending(Operation::Update, &WANTED);
    let prior = record.announced(&change, at(200), None);
    record.rejected(&change, "2007", prior, at(150), Backoff::default());
    let key_alone = sending(Operation::Update, &[]);
    record.announced(&key_alone, at(400), None);
    record.applied(&key_alone);
    assert_eq!((record.mark(), record.held(), record.row()), (None, Some(Held::Rejected), None));
    assert!(record.rejection().unwrap().holds_back(7, false, at(151)));
}

#[test]
fn an_adopted_row_is_known_but_not_ours_and_has_what_was_read() {
    let mut equal = RowRecord::default();
    equal.adopted(WANTED.to_vec(), &WANTED, ROW);
    assert!(equal.is_known() && !equal.is_ours());
    assert_eq!(equal.row(), Some(ROW));
    let mut other = settled();
    other.adopted(vec![(0, 10)], &WANTED, ROW);
    assert_eq!((other.row(), other.field(1)), (None, None));
}

#[test]
fn adopting_leaves_a_marked_row_alone() {
    let mut record = in_doubt("Customers");
    let before = record.clone();
    record.adopted(WANTED.to_vec(), &WANTED, ROW);
    assert_eq!(record, before);
}

#[test]
fn adopting_ends_missing_but_not_a_rejection() {
    let mut missing = RowRecord::default();
    missing.not_found();
    missing.adopted(WANTED.to_vec(), &WANTED, ROW);
    assert_eq!((missing.held(), missing.row()), (None, Some(ROW)));
    let mut rejected = RowRecord::default();
    let change = sending(Operation::Update, &WANTED);
    let prior = rejected.announced(&change, at(100), None);
    rejected.rejected(&change, "2007", prior, at(90), Backoff::default());
    rejected.adopted(WANTED.to_vec(), &WANTED, ROW);
    assert_eq!((rejected.held(), rejected.row()), (Some(Held::Rejected), None));
}

#[test]
fn a_row_that_needs_no_request_is_settled_without_one() {
    let mut record = settled();
    let change = sending(Operation::Update, &[]);
    record.announced(&change, at(200), None);
    record.settled(&WANTED, ROW);
    assert_eq!((record.row(), record.mark()), (Some(ROW), None));
}

fn samples() -> Vec<RowRecord> {
    let mut rejected = in_doubt("Customers");
    let change = sending(Operation::Update, &WANTED);
    let prior = rejected.announced(&change, at(200), None);
    rejected.rejected(&change, "2007", prior, at(150), Backoff::default());
    rejected.set_sealed_key(Some(vec![1, 2, 3]));
    let mut missing = RowRecord::default();
    missing.not_found();
    let mut sent = settled();
    sent.announced(&change, at(300), None);
    let mut with_gaps = settled();
    with_gaps.retain_fields(|slot| slot != WANTED[0].0);
    with_gaps.applied(&sending(Operation::Update, &[(700, 5)]));
    let refused = |operation| {
        let (mut refused, change) = (settled(), sending(operation, &[]));
        let prior = refused.announced(&change, at(200), None);
        refused.rejected(&change, "2007", prior, at(150), Backoff::default());
        refused
    };
    let (removal, by_key) = (refused(Operation::Remove), refused(Operation::Update));
    vec![
        RowRecord::default(),
        settled(),
        in_doubt("Customers"),
        rejected,
        missing,
        sent,
        with_gaps,
        removal,
        by_key,
    ]
}

#[test]
fn a_record_survives_its_bytes() {
    for record in samples() {
        assert_eq!(RowRecord::from_bytes(record.hot(), &record.to_bytes()).unwrap(), record);
    }
}

#[test]
fn a_record_that_is_cut_or_of_another_format_is_damaged_state() {
    for record in samples() {
        let bytes = record.to_bytes();
        for end in 0..bytes.len() {
            let error = RowRecord::from_bytes(record.hot(), &bytes[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StateDamaged);
        }
        let newer = [&[FORMAT + 1], &bytes[1..]].concat();
        assert!(RowRecord::from_bytes(record.hot(), &newer).is_err());
    }
}
