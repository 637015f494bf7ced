//! The protocol with one rule left out or broken. Each must be found out.

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mutant {
    /// The final is the plan: what was committed meanwhile is not marked.
    NoSecondMark,
    /// Who is waited for was listed before the plan was out.
    OpensBeforePlan,
    /// A fence deletes `open` and creates no `end`.
    FenceDeletes,
    /// Writers reuse chunks of packs that a plan condemns.
    ReusesCondemned,
    /// Collectors wait for nobody.
    NoWait,
    /// A commit replaces a fence.
    CommitOverwrites,
    /// Writers reuse chunks of packs that a final names.
    IgnoresFinals,
    /// A collector deletes what it found, not what is recorded (F8).
    OwnSet,
    /// Forgetting deletes the `end`.
    ForgetDeletesEnd,
    /// F1: chunks of sessions that have not committed are reused.
    UncommittedDeltas,
    /// F2: the index is read before `gc/`.
    IndexBeforeCollections,
    /// F3: a plan is made before the last run is.
    NextBeforeRun,
    /// F4: `gc/` is not listed again after `open` was created.
    NoRecheck,
    /// F4: a commit is taken for a fact without a look at the runs.
    NoPostCheck,
    /// F4: ends count whatever the generation their session was born in.
    BirthIgnored,
    /// F5: requests to forget count that came after the plan.
    HonoursLateForgets,
    /// F6: what the last snapshot had is inherited, whatever is condemned.
    InheritsUnchecked,
    /// F7: a plan is made before the last final is.
    NextBeforeFinal,
}

impl Mutant {
    pub(super) const ALL: [Self; 18] = [
        Self::NoSecondMark,
        Self::OpensBeforePlan,
        Self::FenceDeletes,
        Self::ReusesCondemned,
        Self::NoWait,
        Self::CommitOverwrites,
        Self::IgnoresFinals,
        Self::OwnSet,
        Self::ForgetDeletesEnd,
        Self::UncommittedDeltas,
        Self::IndexBeforeCollections,
        Self::NextBeforeRun,
        Self::NoRecheck,
        Self::NoPostCheck,
        Self::BirthIgnored,
        Self::HonoursLateForgets,
        Self::InheritsUnchecked,
        Self::NextBeforeFinal,
    ];
}
