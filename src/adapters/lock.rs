//! Locking without a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a value that is consistent after every statement, so a panic of another thread does not
/// spoil it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
