// Taking back what the owner has just done, as long as nobody did anything like it since.

import { act } from "./speak.js";
import { refreshAnew, state } from "./state.js";
import { say } from "./dom.js";

const TOO_LATE = "Something else was deleted, reset or loaded since, so this cannot be undone.";

// The emulator remembers its last deletion, reset, restore or load. `what` is what it calls it; `done` is told afterwards.
export function undo(what, done) {
  const mine = refreshAnew().then(() => state.status.undo);
  return async () => {
    const last = await mine;
    if (last?.what !== what) throw new Error(TOO_LATE);
    await act("undo", { number: last.number }).catch((error) => {
      throw new Error(/^number is /.test(error.hint) ? TOO_LATE : `This cannot be undone: ${error.message}`);
    });
    say(done, "good");
    await refreshAnew();
  };
}
