//! What recovery makes of every state a log can be found in.

mod rig;

use rig::{Rig, small};
use tidegate::base::WriterId;
use tidegate::handoff::WriterState;
use tidegate::sys::storage::{DirectStorage, SyncChoice};

#[test]
fn a_log_on_a_real_disk_is_written_rolled_and_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let config = small(directory.path());
    let storage = || Box::new(DirectStorage::open(directory.path(), WriterId(0), SyncChoice::Auto).unwrap());
    for round in 0..3 {
        let mut rig = Rig::open(&config, storage(), 2).unwrap();
        assert_eq!(rig.status.state(), WriterState::Running);
        for event in 0..100 {
            rig.send(0, format!("{{\"round\":{round},\"event\":{event}}}").as_bytes());
            rig.send(1, format!("{{\"round\":{round},\"event\":{event}}}").as_bytes());
            if event % 8 == 7 {
                rig.turn().unwrap();
            }
        }
        eprintln!("{:?}", rig.report);
        assert_eq!(rig.stop().len(), 200);
    }
}
