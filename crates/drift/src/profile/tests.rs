use super::*;

fn labels() -> Vec<String> {
    ["yes", "no", "maybe"].map(str::to_owned).to_vec()
}

fn counts() -> DistributionCounts {
    let mut counts = DistributionCounts::new(3, true);
    for i in 0..300_usize {
        counts.record(Some(i % 4), [0.4, 0.7, 0.95][i % 3], 5 + i % 30, i % 2);
    }
    counts
}

fn profile() -> Profile {
    let made =
        ProfileOrigin { model: "m".to_owned(), version: "3".to_owned(), made_at: "2026-11-25".to_owned(), graph: None };
    Profile::new(made, &counts(), &labels(), Some(ProfileAccuracy { texts: 200, correct: 150 })).unwrap()
}

#[test]
fn profile_written_and_read_is_equal() {
    let text = serde_json::to_string(&profile()).unwrap();
    assert!(text.starts_with(r#"{"version":1,"model":"m","model_version":"3","made":"2026-11-25","texts":300,"#));
    let read: Profile = serde_json::from_str(&text).unwrap();
    assert_eq!(read, profile());
    assert_eq!(read.reference(&labels()).unwrap().counts, counts());
    // The model may have its labels in another order.
    let turned: Vec<String> = labels().into_iter().rev().collect();
    let reference = read.reference(&turned).unwrap();
    assert!(reference.counts.labels.iter().rev().skip(1).eq(counts().labels.iter().take(3)));
}

#[test]
fn profile_without_tokenizer_omits_unknown() {
    let mut profile = profile();
    (profile.unknown, profile.accuracy) = (None, None);
    let text = serde_json::to_string(&profile).unwrap();
    assert!(!text.contains("unknown") && !text.contains("accuracy"));
    assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
}

#[test]
fn profile_with_bad_fields_refused() {
    let text = serde_json::to_string(&profile()).unwrap();
    for (from, to) in [("\"other\":75", "\"other\":-75"), ("\"other\"", "\"others\""), ("\"texts\":300,", "")] {
        assert!(text.contains(from) && serde_json::from_str::<Profile>(&text.replacen(from, to, 1)).is_err(), "{to}");
    }
}

#[test]
fn profile_invalid_error_names_field() {
    fn sums(profile: &mut Profile) -> &mut TokenSums {
        profile.unknown.as_mut().unwrap()
    }
    type Change = fn(&mut Profile);
    let wrong: [(Change, &str); 19] = [
        (|p| p.version = 2, "version: 2, where 1 is understood"),
        (|p| p.texts = 199, "texts: 199, where 200 to 1000000000000 are possible"),
        (|p| p.texts = u64::MAX, "texts: 18446744073709551615, where"),
        (|p| p.made = "x".repeat(4_097), "made: longer than 4096 bytes"),
        (|p| p.labels[1].label = "x".repeat(4_097), "labels: longer than 4096 bytes"),
        (|p| p.labels.clear(), "labels: 0, where 1 to 100000 are possible"),
        (|p| p.labels[1].label = "yes".to_owned(), "labels: \"yes\" is there twice"),
        (|p| p.other += 1, "labels and other: the counts add up to 301, and texts is 300"),
        (|p| p.other = u64::MAX, "labels and other: the counts add up to 18446744073709551615, and"),
        (|p| p.confidence.push(0), "confidence: 21 counts, where there are 20 bins"),
        (|p| p.confidence[3] += 2, "confidence: the counts add up to 302, and texts is 300"),
        (|p| p.lengths.truncate(3), "lengths: 3 counts, where there are 16 bins"),
        (|p| p.lengths[0] += 1, "lengths: the counts add up to 301"),
        (|p| sums(p).unknown = sums(p).tokens + 1, "unknown: more tokens are unknown than there are"),
        (|p| sums(p).tokens_by_unknown = 0, "unknown: unknown_squared is at most"),
        (|p| sums(p).tokens_squared = sums(p).tokens, "unknown: the squares are too small for the sums"),
        (|p| sums(p).unknown_squared = 0, "unknown: the squares are too small for the sums"),
        (|p| p.accuracy = Some(ProfileAccuracy { texts: 9, correct: 10 }), "accuracy: 10 right of 9, which is more"),
        (|p| p.accuracy = Some(ProfileAccuracy { texts: 301, correct: 0 }), "accuracy: 0 right of 301"),
    ];
    for (change, message) in wrong {
        let mut profile = profile();
        change(&mut profile);
        let found = profile.validate().unwrap_err();
        assert!(found.starts_with(message), "{found}");
        assert_eq!(profile.reference(&labels()).unwrap_err(), found);
    }
}

fn reference_error(labels: &[String]) -> String {
    profile().reference(labels).unwrap_err()
}

fn origin() -> ProfileOrigin {
    ProfileOrigin { model: "m".to_owned(), version: "3".to_owned(), made_at: String::new(), graph: None }
}

#[test]
fn profile_other_labels_refused() {
    let mut more = labels();
    more.push("never".to_owned());
    assert_eq!(reference_error(&more), "labels: \"never\", which the model has, is missing");
    assert_eq!(reference_error(&more[1..3]), "labels: \"yes\" is no label of the model");
    assert_eq!(
        reference_error(&["yes", "yes", "no", "maybe"].map(str::to_owned)),
        "labels: \"yes\", which the model has, is missing"
    );
    assert!(Profile::new(origin(), &counts(), &more, None).is_err());
    assert_eq!(
        Profile::new(origin(), &DistributionCounts::new(3, false), &labels(), None),
        Err("texts: 0, where 200 to 1000000000000 are possible".to_owned())
    );
}
