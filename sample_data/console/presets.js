// Trouble as people call it, as data: what is sent to the control interface, one call after the other.
// A call is a fault unless it names another verb.

export const PRESETS = {
  "flaky wifi": [
    { kind: "abort" },
    { kind: "cut", chance: 0.2, for: 60 },
    { kind: "delay", seconds: 0.4, for: 60 },
  ],
  train: [{ kind: "outage", mode: "hang", seconds: 15 }],
  "slow 3G": [
    { kind: "delay", seconds: 2, for: 120 },
    { kind: "messages", what: "late", seconds: 2, for: 120 },
  ],
  "backend deploy": [
    { kind: "close", code: 1012, reason: "deploy" },
    { kind: "outage", seconds: 20 },
  ],
  "rate limit": [{ kind: "status", status: 429, headers: { "Retry-After": "5" }, for: 30 }],
  "token stolen": [{ verb: "expire-tokens" }],
};

// Small ones, which hit once.
export const ONCE = {
  "Next request: 503": [{ kind: "status", status: 503, times: 1 }],
  "Lose next answer": [{ kind: "cut", when: "after", times: 1 }],
  "Lose next message": [{ kind: "messages", what: "drop", times: 1 }],
  "Drop sockets": [{ kind: "abort" }],
  "Close with 1011": [{ kind: "close", code: 1011, reason: "drill" }],
  "Outage of 5 s": [{ kind: "outage", seconds: 5 }],
};
