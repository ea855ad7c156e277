//! Work that several threads do and one takes, in the order in which it was given out.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvError, channel};

use super::error::SendError;

/// Gives `tasks` to threads that `worker` makes, each with memory of its own, and what they make of them to `each`, in
/// order. A few tasks for each thread are under way at a time.
pub(super) fn in_order<T: Send, R: Send, W: FnMut(T) -> R>(
    threads: usize,
    tasks: impl Iterator<Item = T>,
    worker: impl Fn() -> W + Sync,
    mut each: impl FnMut(R) -> Result<(), SendError>,
) -> Result<(), SendError> {
    /// Enough that no thread waits for a slow neighbour.
    const PER_THREAD: usize = 4;
    let threads = threads.max(1);
    let (sender, queue) = channel();
    let queue = Mutex::new(queue);
    let take =
        || queue.lock().map_or(Err(RecvError), |queue: std::sync::MutexGuard<'_, Receiver<_>>| queue.recv());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut work = worker();
                while let Ok((task, answer)) = take() {
                    let answer: std::sync::mpsc::Sender<R> = answer;
                    // Nobody waits any more once something else failed.
                    drop(answer.send(work(task)));
                }
            });
        }
        // Dropped at the end of this closure: then the threads end.
        let sender = sender;
        let mut waiting: VecDeque<Receiver<R>> = VecDeque::new();
        let mut finish = |next: Receiver<R>| each(next.recv().map_err(|_| SendError::Interrupted)?);
        for task in tasks {
            let (answer, result) = channel();
            // The queue outlives this loop.
            drop(sender.send((task, answer)));
            waiting.push_back(result);
            if waiting.len() > threads * PER_THREAD
                && let Some(next) = waiting.pop_front()
            {
                finish(next)?;
            }
        }
        waiting.into_iter().try_for_each(finish)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_tasks() {
        for threads in [0, 1, 3] {
            let mut seen = Vec::new();
            let slow = || {
                |n: u64| {
                    std::thread::sleep(std::time::Duration::from_micros(n % 7 * 50));
                    n * 2
                }
            };
            in_order(threads, 0..200, slow, |n| {
                seen.push(n);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, (0..200).map(|n| n * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_ends_it() {
        let result = in_order(
            2,
            0..,
            || |n: u64| n,
            |n| match n {
                50 => Err(SendError::Interrupted),
                _ => Ok(()),
            },
        );
        assert!(matches!(result, Err(SendError::Interrupted)));
    }
}
