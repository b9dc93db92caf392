// A few months of activity: comments in threads, and the sign-ins and sign-outs around them.
// Nothing here is random, so a second run says the same and adds nothing.
// +seed:env dev
// +seed:depends-on posts.sql
// +seed:idempotent
// +seed:verify SELECT count(*) >= 24 FROM np_comments
// +seed:verify SELECT count(*) = 0 FROM np_events_default WHERE occurred_at < '2025-01-01'

type Sql = (parts: TemplateStringsArray, ...values: unknown[]) => unknown;

const READERS: number[] = [1, 2, 3, 4, 5, 6];
const POSTS: number[] = [1, 2, 4, 5, 7, 8];
const REMARKS: string[] = [
  "I'd read a second part.",
  'What about "decaf"?',
  "Thank you!\nIt's on my list now.",
  "50 % of this is the water: see C:\\brew\\notes",
];

/** The n-th id of a kind, e.g. ("c0", 3) -> c0000000-0000-4000-8000-000000000003. */
function id(kind: string, n: number): string {
  return `${kind}000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
}

/** `hours` after noon of the first of October 2024, UTC: by then every post is out. */
function moment(hours: number): string {
  return new Date(Date.UTC(2024, 9, 1, 12 + hours)).toISOString();
}

export default function* (sql: Sql, env: string) {
  let comment = 0;
  for (const post of POSTS) {
    for (const [turn, remark] of REMARKS.entries()) {
      comment += 1;
      const reader = READERS[(post + turn) % READERS.length];
      // Every second remark answers the one before it.
      const parent = turn % 2 === 1 ? id("c0", comment - 1) : null;
      yield sql`
        INSERT INTO np_comments (id, post_id, parent_id, author_id, body, created_at)
        VALUES (${id("c0", comment)}, ${id("b0", post)}, ${parent}, ${id("ac", reader)}, ${remark}, ${moment(comment)})
        ON CONFLICT (id) DO NOTHING`;
    }
  }

  // Two events a session, a session a week and reader, from May into the new year, which has no partition yet.
  let session = 0;
  for (let week = 0; week < 36; week += 1) {
    for (const reader of READERS) {
      session += 1;
      const start = Date.UTC(2024, 4, 2 + 7 * week, 6 + 2 * reader);
      const details = { environment: env, week, remembered: session % 3 === 0 };
      for (const [step, kind] of ["session.started", "session.ended"].entries()) {
        yield sql`
          INSERT INTO np_events (id, occurred_at, account_id, session_id, kind, ip_address, user_agent, details)
          VALUES (${id("ee", 2 * session + step)}, ${new Date(start + step * 1_800_000).toISOString()},
                  ${id("ac", reader)}, ${id("55", session)}, ${kind}, ${`192.0.2.${reader}`},
                  ${"Mozilla/5.0 (seed)"}, ${JSON.stringify(details)})
          ON CONFLICT (id, occurred_at) DO NOTHING`;
      }
    }
  }

  yield sql`SELECT np_refresh_daily_sales()`;
}
