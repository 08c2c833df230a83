//! What a service manager is told: when the server serves, reads its keys again, and stops, each with a line for people.
//! Main thread, which becomes the control thread.
//!
//! Telling decides nothing: where it fails, a line on stderr says so and the server goes on.

use super::say;
use crate::sys::notify::{monotonic_us, notify};

/// The server serves.
pub fn serves(status: &str) {
    tell("READY=1\n", status);
}

/// Something is read again; [`serves`] is to follow.
pub fn reloads() {
    // From version 253 on systemd wants the time (sd_notify(3), Type=notify-reload).
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()), "reading the key file again");
}

/// The server is about to end.
pub fn stops(status: &str) {
    tell("STOPPING=1\n", status);
}

/// What the server is at, and nothing else.
pub fn is_at(status: &str) {
    tell("", status);
}

fn tell(assignments: &str, status: &str) {
    // A line's end would begin the next assignment.
    let status = status.replace('\n', " ");
    if let Err(error) = notify(&format!("{assignments}STATUS={status}\n")) {
        say(&format_args!("the service manager could not be told (NOTIFY_SOCKET): {error}"));
    }
}
