//! Reading on and on.

use super::*;

#[test]
fn a_follower_sees_every_line_through_rotation_and_a_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("not/yet/there");
    let mut follower = Follower::open(&store, Filter::default(), Start::All).unwrap();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut entry = Entry::default();
        let mut seen = Vec::new();
        let mut quiet = 0;
        while seen.len() < 6000 && quiet < 30 {
            match follower.next(&mut entry, Some(Duration::from_secs(1)), None).unwrap() {
                Followed::Record => {
                    seen.push(String::from_utf8_lossy(&entry.text).into_owned());
                    quiet = 0;
                }
                Followed::Quiet => quiet += 1,
            }
        }
        tell.send(()).unwrap();
        seen
    });
    for life in 0..3 {
        let log = Log::start(&store, LogsSpec { segment: Bytes(32 << 10), ..spec() });
        let (mut out, err) = log.attach("a.1", 1, policy());
        for number in 0..2000 {
            writeln!(out, "{}", life * 2000 + number).unwrap();
        }
        drop((out, err));
        log.ended("a.1", 1).recv_timeout(LONG).unwrap();
        log.stop();
    }
    told.recv_timeout(LONG * 2).unwrap();
    let seen = reader.join().unwrap();
    let wanted: Vec<String> = (0..6000).map(|number| number.to_string()).collect();
    assert_eq!(seen, wanted);
    assert!(store.join("000003.log").exists(), "it did rotate");
}

#[test]
fn a_quiet_follower_is_woken_by_a_line_and_by_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach("a.1", 1, policy());
    writeln!(out, "old").unwrap();
    log.flush();
    let mut follower = Follower::open(dir.path(), Filter::default(), Start::End).unwrap();
    let mut entry = Entry::default();
    let begin = Instant::now();
    writeln!(out, "new").unwrap();
    assert_eq!(follower.next(&mut entry, Some(LONG), None).unwrap(), Followed::Record);
    assert_eq!(entry.text, b"new");
    let (wake, mut bell) = std::io::pipe().unwrap();
    bell.write_all(b"x").unwrap();
    use std::os::fd::AsFd;
    let next = follower.next(&mut entry, None, Some(wake.as_fd())).unwrap();
    assert_eq!(next, Followed::Quiet);
    assert!(begin.elapsed() < LONG);
    log.stop();
}

#[test]
fn following_from_now_on_goes_on_in_the_segment_that_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), spec());
    let (mut out, _err) = log.attach("a.1", 1, policy());
    writeln!(out, "old").unwrap();
    log.flush();
    let since = Filter { since: Some(hilum_node::log::record::wall()), ..Filter::default() };
    let mut follower = Follower::open(dir.path(), since, Start::All).unwrap();
    let mut entry = Entry::default();
    writeln!(out, "new").unwrap();
    assert_eq!(follower.next(&mut entry, Some(LONG), None).unwrap(), Followed::Record);
    assert_eq!(entry.text, b"new");
    log.stop();
}

#[test]
fn reading_begins_at_a_number_in_the_middle_of_a_stretch() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::start(dir.path(), LogsSpec { segment: Bytes(4096), ..spec() });
    let (mut out, err) = log.attach("a.1", 1, policy());
    for number in 1..=300 {
        writeln!(out, "line {number}").unwrap();
    }
    drop((out, err));
    log.ended("a.1", 1).recv_timeout(LONG).unwrap();
    log.stop();
    for from in [1, 2, 77, 299, 300, 301] {
        let seqs: Vec<u64> = read(dir.path(), Filter::default(), Start::From(from))
            .iter()
            .map(|entry| entry.seq)
            .collect();
        assert_eq!(seqs, (from..=300).collect::<Vec<_>>());
    }
}
