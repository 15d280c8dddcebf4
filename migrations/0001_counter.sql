-- The counter. One row, created here and not by the first visitor's request: that request may arrive on a
-- replica, which cannot write.
create table counter (
    id integer primary key check (id = 1),
    -- Kept in 64 bits by the application: in SQLite an addition that leaves them turns into a float.
    count integer not null
) strict;

insert into counter (id, count) values (1, 0);
