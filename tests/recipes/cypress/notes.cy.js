const key = "cypress";
const endpoint = "examples/unsecure-endpoint";

beforeEach(() => {
  cy.task("open", key); // one that is there begins anew
  cy.visit(`/?key=${key}`);
  cy.contains("[role=status]", "online");
});

it("shows a note that somebody else stores", () => {
  cy.task("store", { key, endpoint, data: { text: "bread" } });
  cy.contains("li", "bread");
});

it("comes back after an outage", () => {
  cy.task("control", { key, verb: "faults", args: { kind: "outage", seconds: 60 } });
  cy.contains("[role=status]", "offline");
  cy.task("control", { key, verb: "advance", args: { seconds: 60 } });
  cy.contains("[role=status]", "online");
});
