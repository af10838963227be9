//! Functions of a module whose types were compared with the contract when the module was loaded, so that a call need not
//! compare them again: that would be a tenth of it.

use std::marker::PhantomData;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc};

use super::engine::Sandbox;

/// What a function of the contract takes and returns.
pub(super) trait FunctionType {
    /// What it takes.
    type Params<'a>: ComponentNamedList + Lower;
    /// What it returns.
    type Result: ComponentNamedList + Lift + 'static;
}

/// A function of one component, with the types of `S`.
// INVARIANT: only `Function::compared` makes one, so the component's function has these types.
pub(super) struct Function<S> {
    export: ComponentExportIndex,
    types: PhantomData<fn() -> S>,
}

/// The function is of another component than the instance.
#[derive(Debug, thiserror::Error)]
#[error("the instance has no such function")]
struct OtherComponent;

impl<S: FunctionType> Function<S> {
    /// The function `export` of the instance's component, if it has the types of `S`.
    pub(super) fn compared(
        export: ComponentExportIndex,
        instance: &Instance,
        store: &mut Store<Sandbox>,
    ) -> wasmtime::Result<Function<S>> {
        instance.get_typed_func::<S::Params<'_>, S::Result>(store, &export)?;
        Ok(Function { export, types: PhantomData })
    }

    /// The same function in another instance of the same component.
    pub(super) fn of<'a>(
        &self,
        instance: &Instance,
        store: &mut Store<Sandbox>,
    ) -> wasmtime::Result<TypedFunc<S::Params<'a>, S::Result>> {
        let function =
            instance.get_func(store, self.export).ok_or_else(|| wasmtime::Error::new(OtherComponent))?;
        // SAFETY: the function must take and return what `S` says. wasmtime finds nothing with the index of another
        // component, and a component's function has the same types in all of its instances; they were compared with `S`
        // when this `Function<S>` was made.
        #[expect(unsafe_code, reason = "wasmtime has no other way to keep the result of a comparison")]
        Ok(unsafe { TypedFunc::new_unchecked(function) })
    }
}
