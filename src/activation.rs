//! Activation: mapping, destination and store together, and the whole road in one call.

use std::{fmt, future::Future, sync::Arc};

use futures::{
    StreamExt,
    future::{Either, select},
};

use crate::{
    Result,
    batch::Batch,
    destination::Destination,
    event::Event,
    mapping::Mapping,
    plan::{Guards, MissingPolicy, Plan, PlanOptions, plan},
    report::Report,
    rows::Source,
    state::StateStore,
};

/// A sync: which columns go where, and where it is remembered.
///
/// [`run`](Self::run) does all of it. [`plan`](Self::plan) stops before the first write, and [`apply`](Self::apply)
/// carries out what was planned.
///
/// Clones share destination and store.
#[derive(Clone)]
#[must_use = "an activation does nothing by itself: `run` it"]
pub struct Activation {
    mapping: Mapping,
    destination: Arc<dyn Destination>,
    store: Arc<dyn StateStore>,
    options: PlanOptions,
}

impl Activation {
    /// A sync with the default options: rows that are absent from the source are left alone, and a source needs one
    /// row.
    pub fn new(
        mapping: Mapping,
        destination: impl Destination + 'static,
        store: impl StateStore + 'static,
    ) -> Self {
        Self {
            mapping,
            destination: Arc::new(destination),
            store: Arc::new(store),
            options: PlanOptions::default(),
        }
    }

    /// How plans are made. It replaces everything set before, guards and observer as well.
    pub fn options(mut self, options: PlanOptions) -> Self {
        self.options = options;
        self
    }

    /// What a plan must not exceed.
    pub fn guards(mut self, guards: Guards) -> Self {
        self.options = self.options.guards(guards);
        self
    }

    /// Who is told what happens.
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.options = self.options.observe(observer);
        self
    }

    /// Compares a source with what the destination has acknowledged. Writes nothing, neither there nor in the state.
    ///
    /// # Errors
    /// As [`plan`](crate::plan()), and what reading from the destination fails with.
    pub async fn plan<'a>(&self, source: impl Into<Source<'a>> + Send) -> Result<Plan> {
        let target = self.destination.describe(self.mapping.fields()).await?;
        let finds = target.finds;
        let mapping = self.mapping.clone().bind(&target)?;
        let plan = plan(source, &mapping, &*self.store, &self.options).await?;
        if finds && self.options.missing == MissingPolicy::Ask {
            return plan.resolve_missing(&*self.destination).await;
        }
        Ok(plan)
    }

    /// Carries out a plan: creates what the destination lacks, and sends the batches.
    ///
    /// # Errors
    /// * [`ErrorKind::Guard`](crate::ErrorKind::Guard) if a guard refuses the plan: nothing was written;
    /// * [`ErrorKind::StateMoved`](crate::ErrorKind::StateMoved) if state or destination are no longer what the plan was
    ///   made for: no row was sent;
    /// * [`ErrorKind::Busy`](crate::ErrorKind::Busy) if another run holds the state: nothing was written;
    /// * what the run had to stop for. [`Error::report`](crate::Error::report) says how far it came.
    ///
    /// # Cancellation
    /// A future that is dropped before its end is like a process that dies: nothing is lost, but the state stays held for
    /// some minutes, and rows that were under way wait as long. To end early use [`apply_until`](Self::apply_until).
    pub async fn apply(&self, plan: Plan) -> Result<Report> {
        self.apply_until(plan, std::future::pending()).await
    }

    /// Carries out a plan until `stop` is ready. Then no further batch is begun; those under way are waited for, so
    /// nothing is lost, and the next run goes on where this one ended. While the destination is still being prepared, the
    /// run ends without waiting for that.
    ///
    /// # Errors
    /// As [`apply`](Self::apply). Being stopped is no error: see [`Report::stopped`].
    pub async fn apply_until(&self, plan: Plan, stop: impl Future<Output = ()> + Send) -> Result<Report> {
        let plan = plan.with_defaults(&self.options);
        let header = plan.check_startable(&*self.store).await?;
        let target = self.destination.describe(self.mapping.fields()).await?;
        plan.head.check_made_for(&target, self.mapping.fields(), header.as_ref())?;
        let limits = target.limits();
        let mut run = plan.start(&*self.store, limits).await?;
        let mut stop = Box::pin(stop);
        // Only whoever holds the state creates anything.
        let preparing = Box::pin(run.held_during(self.destination.prepare(target)));
        let prepared = match select(preparing, &mut stop).await {
            Either::Left((prepared, _)) => prepared,
            Either::Right(_) => None,
        };
        match prepared.map(|prepared| prepared.and_then(|target| run.bind(&target))) {
            // It was told to stop, or has lost its hold on the state.
            None => {}
            Some(Err(error)) => run.fail(error),
            Some(Ok(())) => {
                let batches = run.batches().take_until(stop);
                let deliver = |batch: Batch| batch.deliver(&*self.destination);
                batches.for_each_concurrent(limits.in_flight_max(), deliver).await;
            }
        }
        run.finish().await
    }

    /// Plans and carries out the plan.
    ///
    /// # Errors
    /// As [`plan`](Self::plan) and [`apply`](Self::apply).
    pub async fn run<'a>(&self, source: impl Into<Source<'a>> + Send) -> Result<Report> {
        let plan = self.plan(source).await?;
        self.apply(plan).await
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("mapping", &self.mapping)
            .field("destination", &self.destination)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
