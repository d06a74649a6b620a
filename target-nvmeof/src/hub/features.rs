//! Get Features and Set Features (Base, sections 5.15 and 5.27).

use ashlar_env::clock::Instant;
use zerocopy::IntoBytes;

use crate::wire::feature::{HOST_BEHAVIOR_BYTES, HOST_ID_BYTES, Select, TIMESTAMP_BYTES, Timestamp, fid};
use crate::wire::{Sqe, Status};

use super::Hub;
use super::answer::{Answer, Outcome};
use super::identify::has_volatile_cache;
use super::keep_alive::KeepAlive;
use super::reservation::Persistence;

/// The temperature threshold nothing reaches.
const NO_OVER_TEMPERATURE: u16 = 0xFFFF;
/// Bytes of Host Behavior Support with a meaning: ACRE, ETDAS, LBAFEE.
const BEHAVIORS: usize = 3;

/// What a host has set. What has no effect here is kept all the same, since hosts read back what they wrote.
#[derive(Debug)]
pub(super) struct Features {
    arbitration: u32,
    over_temperature: u16,
    under_temperature: u16,
    error_recovery: u32,
    write_atomicity: u32,
    host_behavior: [u8; BEHAVIORS],
    timestamp: Clock,
}

/// The Timestamp feature: counts on from what it was set to.
#[derive(Clone, Copy, Debug)]
struct Clock {
    milliseconds: u64,
    at: Instant,
    set_by_host: bool,
}

impl Features {
    pub fn new(now: Instant) -> Self {
        Self {
            arbitration: 0,
            over_temperature: NO_OVER_TEMPERATURE,
            under_temperature: 0,
            error_recovery: 0,
            write_atomicity: 0,
            host_behavior: [0; BEHAVIORS],
            timestamp: Clock { milliseconds: 0, at: now, set_by_host: false },
        }
    }
}

impl Clock {
    fn read(&self, now: Instant) -> Timestamp {
        let elapsed = now.since(self.at).as_millis() as u64;
        let milliseconds = self.milliseconds.wrapping_add(elapsed).to_le_bytes();
        Timestamp {
            milliseconds: *milliseconds.first_chunk().expect("six of eight"),
            attributes: u8::from(self.set_by_host) << 1,
            reserved: 0,
        }
    }

    fn set(data: &[u8], now: Instant) -> Result<Self, Status> {
        let milliseconds = data.first_chunk::<6>().ok_or(Status::DATA_SGL_LENGTH_INVALID)?;
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(milliseconds);
        Ok(Self { milliseconds: u64::from_le_bytes(wide), at: now, set_by_host: true })
    }
}

/// What can be done with a feature: DW0 of SEL = 011b. `None` where the controller has no such feature.
fn capabilities(feature: u8, discovery: bool, volatile_cache: bool) -> Option<u32> {
    const NAMESPACE_SPECIFIC: u32 = 1 << 1;
    const CHANGEABLE: u32 = 1 << 2;
    if discovery {
        return matches!(feature, fid::ASYNC_EVENTS | fid::KEEP_ALIVE).then_some(CHANGEABLE);
    }
    Some(match feature {
        fid::WRITE_CACHE if volatile_cache => 0,
        fid::HOST_ID => 0,
        fid::RESERVATION_MASK | fid::RESERVATION_PERSISTENCE => NAMESPACE_SPECIFIC | CHANGEABLE,
        fid::ARBITRATION
        | fid::POWER
        | fid::TEMPERATURE
        | fid::ERROR_RECOVERY
        | fid::QUEUES
        | fid::WRITE_ATOMICITY
        | fid::ASYNC_EVENTS
        | fid::TIMESTAMP
        | fid::KEEP_ALIVE
        | fid::HOST_BEHAVIOR => CHANGEABLE,
        _ => return None,
    })
}

/// The features of I/O controllers, for the log of feature effects.
pub(super) fn known_features(volatile_cache: bool) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(move |&feature| capabilities(feature, false, volatile_cache).is_some())
}

/// THSEL: which of the composite temperature's thresholds; `None` for sensors there are not.
fn is_under_temperature(cdw11: u32) -> Result<bool, Status> {
    let (sensor, kind) = (cdw11 >> 16 & 0xF, cdw11 >> 20 & 3);
    if !matches!(sensor, 0 | 0xF) || kind > 1 {
        return Err(Status::INVALID_FIELD);
    }
    Ok(kind == 1)
}

/// Number of Queues as both halves of DW0, 0's based.
const fn queues(granted: u16) -> u32 {
    let last = granted.saturating_sub(1) as u32;
    last << 16 | last
}

impl Hub {
    fn feature_capabilities(&self, cntlid: u16, feature: u8) -> Result<u32, Status> {
        let controller = self.controller(cntlid);
        let volatile_cache = self.subsystem_of(cntlid).is_some_and(has_volatile_cache);
        capabilities(feature, controller.discovery, volatile_cache).ok_or(Status::INVALID_FIELD)
    }

    /// Get Features.
    pub(super) fn get_features(&mut self, cntlid: u16, sqe: &Sqe, now: Instant) -> Outcome {
        let feature = sqe.cdw10.get() as u8;
        let capabilities = self.feature_capabilities(cntlid, feature)?;
        match Select::of(sqe.cdw10.get()).ok_or(Status::INVALID_FIELD)? {
            Select::Current if feature == fid::RESERVATION_PERSISTENCE => {
                self.reservation_persistence(cntlid, sqe, Persistence::Get)
            }
            Select::Current => self.current_feature(cntlid, sqe, feature, now),
            // Nothing is saved, so the saved value is the default.
            Select::Default | Select::Saved => self.default_feature(cntlid, sqe, feature, now),
            Select::Capabilities => {
                let data = sqe.sgl.length.get();
                let answer = if data == 0 { Answer::DONE } else { Answer::data(&[], data) };
                Ok(Answer { dw0: capabilities, ..answer }.into())
            }
        }
    }

    fn current_feature(&self, cntlid: u16, sqe: &Sqe, feature: u8, now: Instant) -> Outcome {
        let controller = self.controller(cntlid);
        let features = &controller.features;
        let value = match feature {
            fid::ARBITRATION => features.arbitration,
            fid::POWER => 0,
            fid::TEMPERATURE if is_under_temperature(sqe.cdw11.get())? => features.under_temperature.into(),
            fid::TEMPERATURE => features.over_temperature.into(),
            fid::ERROR_RECOVERY => features.error_recovery,
            fid::WRITE_CACHE => 1,
            fid::QUEUES => queues(controller.io_granted),
            fid::WRITE_ATOMICITY => features.write_atomicity,
            fid::ASYNC_EVENTS => controller.events.configuration,
            fid::KEEP_ALIVE => controller.keep_alive.timeout_ms,
            fid::TIMESTAMP => {
                return Ok(Answer::data(features.timestamp.read(now).as_bytes(), TIMESTAMP_BYTES).into());
            }
            fid::HOST_BEHAVIOR => {
                return Ok(Answer::data(&features.host_behavior, HOST_BEHAVIOR_BYTES).into());
            }
            fid::HOST_ID => return host_id(&controller.host.0, sqe),
            fid::RESERVATION_MASK => return self.get_reservation_mask(cntlid, sqe.nsid.get()),
            _ => return Err(Status::INVALID_FIELD),
        };
        Ok(Answer::value(value).into())
    }

    fn default_feature(&self, cntlid: u16, sqe: &Sqe, feature: u8, now: Instant) -> Outcome {
        let value = match feature {
            fid::TEMPERATURE if !is_under_temperature(sqe.cdw11.get())? => NO_OVER_TEMPERATURE.into(),
            fid::WRITE_CACHE => 1,
            fid::QUEUES => queues(self.config.limits.io_queues_max),
            fid::TIMESTAMP => {
                return Ok(
                    Answer::data(Features::new(now).timestamp.read(now).as_bytes(), TIMESTAMP_BYTES).into()
                );
            }
            fid::HOST_BEHAVIOR => return Ok(Answer::data(&[], HOST_BEHAVIOR_BYTES).into()),
            fid::HOST_ID => return host_id(&self.controller(cntlid).host.0, sqe),
            _ => 0,
        };
        Ok(Answer::value(value).into())
    }

    /// Set Features.
    pub(super) fn set_features(&mut self, cntlid: u16, sqe: &Sqe, data: &[u8], now: Instant) -> Outcome {
        const SAVE: u32 = 1 << 31;
        let feature = sqe.cdw10.get() as u8;
        let value = sqe.cdw11.get();
        self.feature_capabilities(cntlid, feature)?;
        if sqe.cdw10.get() & SAVE != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        match feature {
            fid::QUEUES => return self.set_queues(cntlid, value),
            fid::KEEP_ALIVE => {
                self.controller_mut(cntlid).keep_alive.timeout_ms = KeepAlive::round(value);
                self.note_life(cntlid, now);
            }
            fid::ASYNC_EVENTS => self.controller_mut(cntlid).events.configure(value)?,
            fid::TIMESTAMP => self.controller_mut(cntlid).features.timestamp = Clock::set(data, now)?,
            fid::RESERVATION_MASK => return self.set_reservation_mask(cntlid, sqe),
            fid::RESERVATION_PERSISTENCE => {
                return self.reservation_persistence(cntlid, sqe, Persistence::Set);
            }
            // The host identifier is Connect's.
            fid::HOST_ID => return Err(Status::COMMAND_SEQUENCE_ERROR),
            // The cache is there or it is not; a host cannot switch it.
            fid::WRITE_CACHE if value & 1 == 0 => return Err(Status::FEATURE_NOT_CHANGEABLE),
            fid::WRITE_CACHE => {}
            _ => self.controller_mut(cntlid).features.set(feature, value, data)?,
        }
        Ok(Answer::DONE.into())
    }

    fn set_queues(&mut self, cntlid: u16, value: u32) -> Outcome {
        let (submission, completion) = (value as u16, (value >> 16) as u16);
        if submission == u16::MAX || completion == u16::MAX {
            return Err(Status::INVALID_FIELD);
        }
        let io_queues_max = self.config.limits.io_queues_max;
        let controller = self.controller_mut(cntlid);
        if !controller.io.is_empty() {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        controller.io_granted = (submission.min(completion) + 1).min(io_queues_max);
        Ok(Answer::value(queues(controller.io_granted)).into())
    }
}

impl Features {
    /// Sets what has no effect but to be read back.
    fn set(&mut self, feature: u8, value: u32, data: &[u8]) -> Result<(), Status> {
        const DULBE: u32 = 1 << 16;
        match feature {
            fid::ARBITRATION => self.arbitration = value,
            // There is one power state, 0.
            fid::POWER if value & 0x1F == 0 => {}
            fid::TEMPERATURE if is_under_temperature(value)? => self.under_temperature = value as u16,
            fid::TEMPERATURE => self.over_temperature = value as u16,
            fid::ERROR_RECOVERY if value & DULBE == 0 => self.error_recovery = value & 0xFFFF,
            fid::WRITE_ATOMICITY => self.write_atomicity = value & 1,
            fid::HOST_BEHAVIOR => {
                let behavior = data.first_chunk().ok_or(Status::DATA_SGL_LENGTH_INVALID)?;
                if behavior.iter().any(|&byte| byte > 1) {
                    return Err(Status::INVALID_FIELD);
                }
                self.host_behavior = *behavior;
            }
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(())
    }
}

/// The host identifier has 128 bits; there is no shorter form on fabrics (EXHID must be 1).
fn host_id(host: &[u8; 16], sqe: &Sqe) -> Outcome {
    if sqe.cdw11.get() & 1 == 0 {
        return Err(Status::INVALID_FIELD);
    }
    Ok(Answer::data(host, HOST_ID_BYTES).into())
}
