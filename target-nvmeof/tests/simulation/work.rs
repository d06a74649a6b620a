//! What workers of a host do with the blocks of a volume, and what they tell the books.

use ashlar_env::Rng;
use ashlar_nvmeof::wire::sqe::io;
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_sim::SimEnv;
use ashlar_sim::check::Value;
use ashlar_sim::check::ledger::WriteEnd;
use zerocopy::little_endian::U32;

use crate::bytes;
use crate::host::Host;
use crate::queue::{Lost, Queue, Reply};

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// AD, bit 2 of dword 11 of Dataset Management.
const DSM_DEALLOCATE: u32 = 1 << 2;

/// A worker's way to a volume for one command or a few: by which queue, as which namespace.
#[derive(Clone)]
pub struct Access<'a> {
    pub host: &'a Host,
    pub env: &'a SimEnv,
    pub queue: Queue,
    pub nsid: u32,
    pub volume: usize,
    /// Whether the target knows that this host flushes.
    pub flushes: bool,
    pub writer: u32,
}

/// Blocks of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    pub first: u64,
    pub count: u64,
}

/// What became of a compare-and-write or a compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    Equal,
    Differs,
    /// The medium erred.
    Failed,
}

impl Access<'_> {
    fn sqe(&self, opcode: u8, blocks: Blocks, flags: u32) -> Sqe {
        let mut sqe = bytes::sqe(opcode, 0, 0);
        sqe.nsid = U32::new(self.nsid);
        (sqe.cdw10, sqe.cdw11) = (U32::new(blocks.first as u32), U32::new((blocks.first >> 32) as u32));
        sqe.cdw12 = U32::new((blocks.count - 1) as u32 | flags);
        sqe
    }

    fn len(&self, blocks: Blocks) -> usize {
        blocks.count as usize * self.host.books.borrow().block_bytes(self.volume)
    }

    /// Force unit access by draw: the flag, and whether the write is durable when it completes.
    fn durability(&self) -> (u32, bool) {
        let fua = self.env.random_below(4) == 0;
        (if fua { FUA } else { 0 }, fua || !self.flushes)
    }

    /// Whether a command succeeded; any other status than that of a medium that errs (`fault`), where one may err,
    /// is wrong.
    fn succeeded(&self, what: &str, reply: &Reply, fault: Status) -> bool {
        if reply.status.is_success() {
            return true;
        }
        // Compare-and-write and copy read before they write.
        let known = [fault, Status::UNRECOVERED_READ].contains(&reply.status);
        if known && self.host.media_err {
            self.host.books.borrow_mut().media_errors += 1;
            self.env.marks().hit("host: error of the medium");
        } else {
            self.env.fail("status", format!("vol={}: {what} ended with {:?}", self.volume, reply.status));
        }
        false
    }

    /// Reads, and gives the data and the blocks' values; `None` where the medium erred.
    pub async fn read(&self, blocks: Blocks) -> Result<Option<(Vec<u8>, Vec<Value>)>, Lost> {
        let ticket = self.host.books.borrow_mut().begin_read(self.volume, blocks.first, blocks.count);
        let answer = self.queue.execute(self.sqe(io::READ, blocks, 0), Vec::new(), self.len(blocks)).await;
        let mut books = self.host.books.borrow_mut();
        match answer {
            Ok(reply) if reply.status.is_success() => {
                let values = books.end_read(self.env, self.volume, ticket, &reply.data);
                Ok(Some((reply.data, values)))
            }
            answer => {
                books.drop_read(self.volume, ticket);
                drop(books);
                self.succeeded("a read", &answer?, Status::UNRECOVERED_READ);
                Ok(None)
            }
        }
    }

    /// Ends writes by the answer to their command.
    fn end_writes(&self, what: &str, ids: &[u64], answer: Result<Reply, Lost>) -> Result<bool, Lost> {
        let end = match &answer {
            Ok(reply) if self.succeeded(what, reply, Status::WRITE_FAULT) => WriteEnd::Done,
            Ok(_) => WriteEnd::Fenced,
            Err(Lost) => WriteEnd::Unknown,
        };
        let mut books = self.host.books.borrow_mut();
        for &id in ids {
            books.end_write(self.env, self.volume, id, end);
        }
        answer.map(|_| end == WriteEnd::Done)
    }

    /// Writes; gives what was written, where it was.
    pub async fn write(&self, blocks: Blocks) -> Result<Option<Vec<u8>>, Lost> {
        let mut data = vec![0; self.len(blocks)];
        let (flag, fua) = self.durability();
        let id = {
            let mut books = self.host.books.borrow_mut();
            books.begin_write(self.volume, self.writer, blocks.first, &mut data, fua)
        };
        let answer = self.queue.execute(self.sqe(io::WRITE, blocks, flag), data.clone(), 0).await;
        Ok(self.end_writes("a write", &[id], answer)?.then_some(data))
    }

    pub async fn write_zeroes(&self, blocks: Blocks) -> Result<(), Lost> {
        let (flag, fua) = self.durability();
        let free = if self.env.random_below(2) == 0 { DEALLOCATE } else { 0 };
        let id = self.host.books.borrow_mut().begin_zeroes(self.volume, blocks.first, blocks.count, fua);
        let answer = self.queue.execute(self.sqe(io::WRITE_ZEROES, blocks, flag | free), Vec::new(), 0).await;
        self.end_writes("write zeroes", &[id], answer).map(drop)
    }

    pub async fn deallocate(&self, ranges: &[Blocks]) -> Result<(), Lost> {
        let mut list = Vec::new();
        let mut ids = Vec::new();
        for range in ranges {
            list.extend([0; 4]);
            list.extend((range.count as u32).to_le_bytes());
            list.extend(range.first.to_le_bytes());
            // No force unit access here, so only a flush makes it durable.
            let mut books = self.host.books.borrow_mut();
            ids.push(books.begin_zeroes(self.volume, range.first, range.count, false));
        }
        let mut sqe = self.sqe(io::DATASET_MANAGEMENT, ranges[0], 0);
        (sqe.cdw10, sqe.cdw11) = (U32::new(ranges.len() as u32 - 1), U32::new(DSM_DEALLOCATE));
        sqe.cdw12 = U32::new(0);
        let answer = self.queue.execute(sqe, list, 0).await;
        self.end_writes("deallocate", &ids, answer).map(drop)
    }

    pub async fn flush(&self) -> Result<(), Lost> {
        let ticket = self.host.books.borrow_mut().begin_flush(self.volume);
        let mut sqe = bytes::sqe(io::FLUSH, 0, 0);
        sqe.nsid = U32::new(self.nsid);
        let reply = self.queue.execute(sqe, Vec::new(), 0).await?;
        if self.succeeded("a flush", &reply, Status::WRITE_FAULT) {
            self.host.books.borrow_mut().end_flush(self.volume, ticket);
        }
        Ok(())
    }

    pub async fn verify(&self, blocks: Blocks) -> Result<(), Lost> {
        let reply = self.queue.execute(self.sqe(io::VERIFY, blocks, 0), Vec::new(), 0).await?;
        self.succeeded("verify", &reply, Status::UNRECOVERED_READ);
        Ok(())
    }

    /// Compares the blocks with `expected`.
    pub async fn compare(&self, blocks: Blocks, expected: &[u8]) -> Result<Compared, Lost> {
        let ticket = self.host.books.borrow_mut().begin_read(self.volume, blocks.first, blocks.count);
        let answer = self.queue.execute(self.sqe(io::COMPARE, blocks, 0), expected.to_vec(), 0).await;
        let mut books = self.host.books.borrow_mut();
        match answer {
            Ok(reply) if reply.status.is_success() => {
                books.end_read(self.env, self.volume, ticket, expected);
                Ok(Compared::Equal)
            }
            Ok(reply) if reply.status == Status::COMPARE_FAILURE => {
                books.drop_read(self.volume, ticket);
                Ok(Compared::Differs)
            }
            answer => {
                books.drop_read(self.volume, ticket);
                drop(books);
                self.succeeded("a compare", &answer?, Status::UNRECOVERED_READ);
                Ok(Compared::Failed)
            }
        }
    }

    /// Copies `from`, which holds `values` and which nobody else writes, to where `to` begins.
    pub async fn copy(&self, from: Blocks, values: &[Value], to: u64) -> Result<(), Lost> {
        let (flag, fua) = self.durability();
        let named: Vec<(u64, Value)> = (from.first..).zip(values.iter().copied()).collect();
        let id = self.host.books.borrow_mut().begin_copy(self.volume, &named, to, fua);
        let mut list = vec![0; 32];
        list[8..16].copy_from_slice(&from.first.to_le_bytes());
        list[16..18].copy_from_slice(&(from.count as u16 - 1).to_le_bytes());
        let answer =
            self.queue.execute(self.sqe(io::COPY, Blocks { first: to, count: 1 }, flag), list, 0).await;
        self.end_writes("a copy", &[id], answer).map(drop)
    }

    /// A fused compare-and-write.
    pub async fn compare_and_write(&self, blocks: Blocks, expected: &[u8]) -> Result<Compared, Lost> {
        let mut data = vec![0; expected.len()];
        let (flag, fua) = self.durability();
        let (read, write, fences) = {
            let mut books = self.host.books.borrow_mut();
            let read = books.begin_read(self.volume, blocks.first, blocks.count);
            let write = books.begin_write(self.volume, self.writer, blocks.first, &mut data, fua);
            (read, write, books.fences)
        };
        let mut first = self.sqe(io::COMPARE, blocks, 0);
        first.flags |= 1;
        let mut second = self.sqe(io::WRITE, blocks, flag);
        second.flags |= 2;
        // The halves must follow each other: nothing may come between these two calls.
        let pair = (self.queue.start(first, expected.to_vec(), 0), self.queue.start(second, data, 0));
        let answers = match pair {
            (Ok(first), Ok(second)) => {
                let first = self.queue.finish(first).await;
                (first, self.queue.finish(second).await)
            }
            _ => (Err(Lost), Err(Lost)),
        };
        let mut books = self.host.books.borrow_mut();
        let (compared, end) = match &answers {
            (Ok(first), Ok(second)) if first.status.is_success() && second.status.is_success() => {
                (Ok(Compared::Equal), WriteEnd::Done)
            }
            (Ok(first), Ok(second))
                if first.status == Status::COMPARE_FAILURE
                    && second.status == Status::ABORTED_FAILED_FUSED =>
            {
                (Ok(Compared::Differs), WriteEnd::Refused)
            }
            (Ok(_), Ok(_)) => (Ok(Compared::Failed), WriteEnd::Fenced),
            // One answer of two says enough only of the write.
            (_, Ok(second)) if second.status.is_success() => (Err(Lost), WriteEnd::Done),
            (_, Ok(second)) if second.status == Status::ABORTED_FAILED_FUSED => (Err(Lost), WriteEnd::Fenced),
            (Ok(first), _) if first.status == Status::COMPARE_FAILURE => (Err(Lost), WriteEnd::Refused),
            _ => (Err(Lost), WriteEnd::Unknown),
        };
        if compared == Ok(Compared::Equal) {
            let values = books.end_read(self.env, self.volume, read, expected);
            books.swapped(self.env, self.volume, blocks.first, &values, fences);
        } else {
            books.drop_read(self.volume, read);
        }
        books.end_write(self.env, self.volume, write, end);
        drop(books);
        if let (Ok(first), Ok(second)) = &answers
            && !first.status.is_success()
            && compared != Ok(Compared::Differs)
        {
            self.succeeded("the compare of a pair", first, Status::WRITE_FAULT);
            if second.status != Status::ABORTED_FAILED_FUSED {
                self.env.fail("status", format!("the write of a failed pair ended with {:?}", second.status));
            }
        }
        compared
    }
}
