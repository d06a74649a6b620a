//! Keeps writers out while the volumes are restored.

use std::cell::Cell;

use super::signal::Signal;

/// Writers pass together; whoever closes the gate waits until none is inside and is then alone.
#[derive(Default)]
pub struct Gate {
    inside: Cell<usize>,
    closed: Cell<bool>,
    changed: Signal,
}

/// A writer inside.
pub struct Inside<'a>(&'a Gate);

/// The only one inside.
pub struct Alone<'a>(&'a Gate);

impl Gate {
    /// Goes in, as soon as the gate is open.
    pub async fn enter(&self) -> Inside<'_> {
        if self.closed.get() {
            self.changed.wait_until(|| !self.closed.get()).await;
        }
        self.inside.set(self.inside.get() + 1);
        Inside(self)
    }

    /// Closes the gate, and waits until nobody is inside.
    pub async fn close(&self) -> Alone<'_> {
        self.changed.wait_until(|| !self.closed.get()).await;
        self.closed.set(true);
        let alone = Alone(self);
        self.changed.wait_until(|| self.inside.get() == 0).await;
        alone
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
        if self.0.closed.get() {
            self.0.changed.notify();
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.closed.set(false);
        self.0.changed.notify();
    }
}
