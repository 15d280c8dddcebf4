-- The clicks that came with a key, so that each is counted once however often it is sent: a log, in which a row is a batch,
-- written in the transaction that changes the count. The application removes rows again, the oldest first.
create table batch (
    id integer primary key,
    -- In seconds since 1970, by the clock of the primary that took it.
    created integer not null,
    -- JSON: for each click its key, what it asked for (1 or -1), and the count after it, or null where it was refused
    -- since the count was at its end. Not indexed: the writer has an index in memory.
    clicks text not null
) strict;
