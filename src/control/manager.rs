//! What a service manager is told: when the server serves, reads its keys again, and stops, each with a line for people.
//! Main thread, which becomes the control thread.
//!
//! The protocol is sd_notify(3): a datagram to the socket that `NOTIFY_SOCKET` names. Without that variable nobody is told.
//! Telling decides nothing: where it fails, a line on stderr says so and the server goes on.

use sd_notify::NotifyState;

use super::say;

/// The server serves.
pub fn serves(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Something is read again; [`serves`] is to follow.
pub fn reloads() {
    // From version 253 on systemd wants the time, to tell this reload from one before (Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => say(&format_args!("the service manager was not told of the reload: {error}")),
    }
}

/// The server is about to end.
pub fn stops(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// What the server is at, and nothing else.
pub fn is_at(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        say(&format_args!("the service manager could not be told (NOTIFY_SOCKET): {error}"));
    }
}

/// A line's end would begin the next assignment.
fn one_line(status: &str) -> String {
    status.replace('\n', " ")
}
