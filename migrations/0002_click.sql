-- Clicks that came with a key, so that each is counted once however often it is sent. Written in the transaction that
-- changes the count. The application removes them again, the oldest first, which is what `id` orders by.
create table click (
    id integer primary key,
    -- Keys that begin with the time (UUIDs of version 7) lie beside each other in the index: new ones dirty few pages.
    key text not null unique,
    -- What it asked for: 1 or -1.
    step integer not null,
    -- The count after it; null: it was refused, since the count was at its end.
    result integer,
    -- In seconds since 1970, by the clock of the primary that took it.
    created integer not null
) strict;
