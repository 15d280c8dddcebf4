// The counter as one would write it in Node: Express, better-sqlite3, and litefs-js for what LiteFS needs. The page is
// the plain handler's, which the benchmark names in PAGE.
import fs from 'node:fs'
import Database from 'better-sqlite3'
import express from 'express'
import { getInstanceInfo } from 'litefs-js'
import { getEnsurePrimaryMiddleware } from 'litefs-js/express'

const onLiteFS = Boolean(process.env.LITEFS_DIR)
const file = process.env.DATABASE_URL.slice('sqlite://'.length)
const [head, tail] = fs.readFileSync(process.env.PAGE, 'utf8').split('{count}')

// LiteFS starts its child before the node has a role, and a replica has no database before its first sync.
async function open() {
  for (;;) {
    try {
      const isReplica = onLiteFS && !(await getInstanceInfo()).currentIsPrimary
      const db = new Database(file, { readonly: isReplica })
      if (!isReplica) {
        db.pragma('journal_mode = wal')
        db.exec('create table if not exists counter (id integer primary key, count integer not null)')
        db.exec('insert or ignore into counter (id, count) values (1, 0)')
      }
      db.prepare('select count from counter where id = 1').get()
      return db
    } catch (error) {
      console.error(`not yet open: ${error}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

const db = await open()
const read = db.prepare('select count from counter where id = 1')
const write = db.prepare('update counter set count = count + ? where id = 1')
const ensurePrimary = onLiteFS ? getEnsurePrimaryMiddleware() : (request, response, next) => next()
const app = express()

app.get('/', (request, response) => {
  response.type('html').send(head + read.get().count + tail)
})

app.post('/', ensurePrimary, express.urlencoded(), (request, response) => {
  const change = { increment: 1, decrement: -1 }[request.body.intent]
  if (!change) return response.sendStatus(422)
  write.run(change)
  response.redirect(303, '/')
})

app.get('/healthcheck', (request, response) => response.send('OK'))

app.listen(Number(process.env.PORT), '127.0.0.1')
