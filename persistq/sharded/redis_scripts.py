"""The scripts of the Redis drivers: each verb is one, and runs with nothing beside it.

Keys begin with the prefix of tubes, P: the places of a tube ``P p:<tube>`` (sorted set), its requests of one
place ``P <place>:<tube>`` (list of ``id:digest:payload``), the tubes by their turn ``P turns`` (sorted
set), what is due later ``P later`` (sorted set of ids) with ``P later:data`` (hash), its ids by what they
say ``P later:<digest>`` (set) and their number by tube ``P later:tubes`` (hash), the digests of what is ready
``P digests`` (hash), the tubes with requests that have none ``P plain`` (set), the last id ``P next``.
Times are microseconds of the server's clock. A number is made text by ``text()``, for Lua's own
way rounds it to 14 digits.
"""

_COMMON = r"""
local P = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function text(number) return string.format('%.0f', number) end
local function list(place, tube) return P .. place .. ':' .. tube end

local function reserve(count)
  local last = redis.call('INCRBY', P .. 'next', count)
  if last == count then  -- ids must not begin anew when everything was forgotten
    last = now + count
    redis.call('SET', P .. 'next', text(last))
  end
  return last - count
end

local plain = {}  -- tubes in which this script puts requests without a digest

-- Returns whether there was none of that place before.
local function add(tube, place, elements)
  local before
  for at = 1, #elements, 1000 do
    local last = math.min(at + 999, #elements)
    local length = redis.call('RPUSH', list(place, tube), unpack(elements, at, last))
    before = before or length - (last - at + 1)
  end
  if before ~= 0 then return false end
  redis.call('ZADD', P .. 'p:' .. tube, place, place)
  return true
end

-- Calls a command with any number of arguments, a thousand at a time.
local function with_all(command, arguments)
  for at = 1, #arguments, 1000 do
    local words = {unpack(command)}
    for number = at, math.min(at + 999, #arguments) do words[#words + 1] = arguments[number] end
    redis.call(unpack(words))
  end
end

local function parts(element) return string.match(element, '^(%d+):(%x*):(.*)$') end

local function ready_one(tube, digest, payload)
  if redis.call('HEXISTS', P .. 'digests', digest) == 1 then return true end
  if not plain[tube] and redis.call('SISMEMBER', P .. 'plain', tube) == 0 then return false end
  for _, place in ipairs(redis.call('ZRANGE', P .. 'p:' .. tube, 0, -1)) do
    for _, element in ipairs(redis.call('LRANGE', list(place, tube), 0, -1)) do
      local _, _, said = parts(element)
      if said == payload then return true end
    end
  end
  return false
end

local function forget_later(id)
  local packed = redis.call('HGET', P .. 'later:data', id)
  if not packed then return nil end
  local one = cmsgpack.unpack(packed)
  redis.call('ZREM', P .. 'later', id)
  redis.call('HDEL', P .. 'later:data', id)
  redis.call('SREM', P .. 'later:' .. one[4], id)
  if redis.call('HINCRBY', P .. 'later:tubes', one[1], -1) <= 0 then redis.call('HDEL', P .. 'later:tubes', one[1]) end
  return one
end

-- Returns place, lengths and elements, these as one text, of each place: to take an element to pieces costs less there.
local function peek(tube, limit)
  local found = {}
  for _, place in ipairs(limit > 0 and redis.call('ZRANGE', P .. 'p:' .. tube, 0, -1) or {}) do
    local elements, lengths = redis.call('LRANGE', list(place, tube), 0, limit - 1), {}
    for number, element in ipairs(elements) do lengths[number] = #element end
    found[#found + 1] = place
    found[#found + 1] = table.concat(lengths, ',')
    found[#found + 1] = table.concat(elements)
    limit = limit - #elements
    if limit <= 0 then break end
  end
  return found
end

-- Makes what is due ready, a page at a time; returns microseconds until the next is due, if any.
local function mature()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'later', '-inf', text(now), 'LIMIT', 0, 500)) do
    local due = tonumber(redis.call('ZSCORE', P .. 'later', id))
    local one = cmsgpack.unpack(redis.call('HGET', P .. 'later:data', id))
    local tube, place, every, digest, payload = unpack(one)
    local take = true
    if every > 0 then
      take = not ready_one(tube, digest, payload)
      redis.call('ZADD', P .. 'later', text(due + every * math.max(1, math.floor((now - due) / every) + 1)), id)
    else
      forget_later(id)
    end
    if take then
      redis.call('HINCRBY', P .. 'digests', digest, 1)
      add(tube, place, {text(reserve(1) + 1) .. ':' .. digest .. ':' .. payload})
      redis.call('ZADD', P .. 'turns', 'NX', text(now), tube)
    end
  end
  local following = redis.call('ZRANGE', P .. 'later', 0, 0, 'WITHSCORES')
  return #following > 0 and text(math.max(0, tonumber(following[2]) - now)) or false
end
"""

EXTEND = (
    _COMMON
    + r"""
local done = redis.call('GET', P .. 'done:' .. ARGV[2])
if done then return tonumber(done) end
local blob, at, count = ARGV[5], 1, 0
local id, turns, without = reserve(tonumber(ARGV[4])), {}, {}
for _, entry in ipairs(cjson.decode(ARGV[3])) do
  local tube, place, due, every, unique, digests, lengths = unpack(entry)
  place = text(place)
  local elements = {}
  for number, length in ipairs(lengths) do
    local payload = string.sub(blob, at, at + length - 1)
    at = at + length
    local digest = digests[number] or ''
    local take = true
    if every > 0 then
      for _, other in ipairs(redis.call('SMEMBERS', P .. 'later:' .. digest)) do
        local known = cmsgpack.unpack(redis.call('HGET', P .. 'later:data', other))
        if known[3] == every then take = false elseif known[3] > 0 then forget_later(other) end
      end
    elseif unique then
      take = redis.call('EXISTS', P .. 'later:' .. digest) == 0 and not ready_one(tube, digest, payload)
    end
    if take then
      id = id + 1
      count = count + 1
      if due >= 0 then
        redis.call('ZADD', P .. 'later', text(now + due), text(id))
        redis.call('HSET', P .. 'later:data', text(id), cmsgpack.pack({tube, place, every, digest, payload}))
        redis.call('SADD', P .. 'later:' .. digest, text(id))
        redis.call('HINCRBY', P .. 'later:tubes', tube, 1)
      else
        if unique then redis.call('HINCRBY', P .. 'digests', digest, 1) end
        elements[#elements + 1] = text(id) .. ':' .. digest .. ':' .. payload
      end
    end
  end
  if #elements > 0 then
    if not digests[1] and not plain[tube] then
      plain[tube] = true
      without[#without + 1] = tube
    end
    if add(tube, place, elements) then
      turns[#turns + 1] = text(now)
      turns[#turns + 1] = tube
    end
  end
end
with_all({'SADD', P .. 'plain'}, without)
with_all({'ZADD', P .. 'turns', 'NX'}, turns)
redis.call('SET', P .. 'done:' .. ARGV[2], count, 'EX', 60)
return count
"""
)
"""prefix, operation, entries as JSON, number of payloads, payloads -> how many were added; repeated, it adds none."""

PEEK = _COMMON + "return peek(ARGV[2], tonumber(ARGV[3]))"
"""prefix, tube, limit -> place, lengths of its elements, and these, of each place."""

LENGTH = (
    _COMMON
    + r"""
local sum = 0
for _, place in ipairs(redis.call('ZRANGE', P .. 'p:' .. ARGV[2], 0, -1)) do
  sum = sum + redis.call('LLEN', list(place, ARGV[2]))
end
return sum
"""
)

EXCHANGE = (
    _COMMON
    + r"""
local tube, lock, limit = ARGV[2], ARGV[3], tonumber(ARGV[5])
if redis.call('HGET', lock, 'owner') ~= ARGV[4] then return -1 end
local wanted, count, removed = {}, 0, 0
for id in string.gmatch(ARGV[6], '%d+') do wanted[id] = true; count = count + 1 end
local function forget(digest)
  removed = removed + 1
  if digest ~= '' and redis.call('HINCRBY', P .. 'digests', digest, -1) <= 0 then
    redis.call('HDEL', P .. 'digests', digest)
  end
end
for _, place in ipairs(count > 0 and redis.call('ZRANGE', P .. 'p:' .. tube, 0, -1) or {}) do
  local key, heads = list(place, tube), 0
  for _, element in ipairs(redis.call('LRANGE', key, 0, count - removed - 1)) do
    local id, digest = string.match(element, '^(%d+):(%x*)')
    if not wanted[id] then break end
    heads = heads + 1
    forget(digest)
  end
  if heads > 0 then redis.call('LTRIM', key, heads, -1) end
  if removed < count then  -- what is not at the head
    for _, element in ipairs(redis.call('LRANGE', key, 0, -1)) do
      local id, digest = parts(element)
      if wanted[id] then
        redis.call('LREM', key, 1, element)
        forget(digest)
        if removed == count then break end
      end
    end
  end
  if redis.call('EXISTS', key) == 0 then redis.call('ZREM', P .. 'p:' .. tube, place) end
  if removed == count then break end
end
if removed > 0 then
  if redis.call('HGET', lock, 'tries') ~= '0' then redis.call('HSET', lock, 'tries', 0) end
  if redis.call('EXISTS', P .. 'p:' .. tube) == 0 then
    redis.call('ZREM', P .. 'turns', tube)
    redis.call('SREM', P .. 'plain', tube)
  else
    redis.call('ZADD', P .. 'turns', text(now), tube)
  end
end
return {removed, peek(tube, limit)}
"""
)
"""prefix, tube, lock, token, limit, ids -> how many were removed, and what PEEK returns; -1 when the lease is lost."""

MATURE = _COMMON + "return mature()"
"""prefix -> microseconds until the next is due, if any; 0 when more is due now."""

LOOK = _COMMON + "return {mature(), redis.call('ZRANGE', P .. 'turns', 0, ARGV[2])}"
"""prefix, last -> what MATURE returns, and the tubes in the order of their turns."""

WITHDRAW = (
    _COMMON
    + r"""
local count = 0
for number = 2, #ARGV do
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'later:' .. ARGV[number])) do
    if forget_later(id) then count = count + 1 end
  end
end
return count
"""
)
"""prefix, digests -> how many were forgotten."""

OVERVIEW = (
    _COMMON
    + r"""
local found, seen = {}, {}
local turns = redis.call('ZRANGE', P .. 'turns', 0, -1, 'WITHSCORES')
for at = 1, #turns, 2 do
  local tube, ready = turns[at], 0
  for _, place in ipairs(redis.call('ZRANGE', P .. 'p:' .. tube, 0, -1)) do
    ready = ready + redis.call('LLEN', list(place, tube))
  end
  seen[tube] = true
  found[#found + 1] = {tube, ready, tonumber(redis.call('HGET', P .. 'later:tubes', tube) or 0), turns[at + 1]}
end
local later = redis.call('HGETALL', P .. 'later:tubes')
for at = 1, #later, 2 do
  if not seen[later[at]] then found[#found + 1] = {later[at], 0, tonumber(later[at + 1]), ''} end
end
return cjson.encode(found)
"""
)
"""prefix -> for each tube: its name, how many are ready and later, and since when, as JSON."""

_LOCKS = r"""
local L = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function text(number) return string.format('%.0f', number) end
local function keep(tube, ahead)
  redis.call('ZADD', L .. 'held', text(now + ahead), tube)
  redis.call('PEXPIRE', L .. tube, text(math.ceil(ahead / 1000) + 86400000))  -- of no use to anybody by then
end
"""

BIND = (
    _LOCKS
    + r"""
local token, lease = ARGV[2], tonumber(ARGV[3])
for number = 4, #ARGV do
  local tube = ARGV[number]
  local held = redis.call('HMGET', L .. tube, 'owner', 'until', 'tries', 'died')
  if held[1] == token then return {tube, held[3], held[4]} end  -- the reply was lost, and this is the repetition
  if not held[1] or tonumber(held[2]) <= now then
    local died = held[1] and held[1] ~= ''
    local tries = tonumber(held[3] or 0) + (died and 1 or 0)
    redis.call('HSET', L .. tube, 'owner', token, 'until', text(now + lease), 'bound', text(now), 'tries', tries,
      'died', died and 1 or 0)
    keep(tube, lease)
    return {tube, tostring(tries), died and '1' or '0'}
  end
end
return false
"""
)
"""prefix, token, lease, tubes -> the tube that was bound, its tries, whether its holder had let it run out."""

RENEW = (
    _LOCKS
    + r"""
local tube, token, lease, cap = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local held = redis.call('HMGET', L .. tube, 'owner', 'bound')
if held[1] ~= token then return -1 end
local left = math.min(lease, tonumber(held[2]) + cap - now)
if left <= 0 then return -2 end
redis.call('HSET', L .. tube, 'until', text(now + left))
keep(tube, left)
return 1
"""
)
"""prefix, tube, token, lease, cap -> 1; -1 when it is lost, -2 when the cap is reached."""

UNBIND = (
    _LOCKS
    + r"""
local tube, token, tries, pause = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('HGET', L .. tube, 'owner') ~= token then return 0 end
if tries > 0 or pause > 0 then
  redis.call('HSET', L .. tube, 'owner', '', 'until', text(now + pause), 'tries', tries)
  keep(tube, pause)
else
  redis.call('DEL', L .. tube)
  redis.call('ZREM', L .. 'held', tube)
end
return 1
"""
)
"""prefix, tube, token, tries, pause."""

RELEASE = _LOCKS + "redis.call('ZREM', L .. 'held', ARGV[2]); return redis.call('DEL', L .. ARGV[2])"
"""prefix, tube -> 1 when there was a lease."""

LEASES = (
    _LOCKS
    + r"""
local found = {}
for _, tube in ipairs(redis.call('ZRANGE', L .. 'held', 0, -1)) do
  local held = redis.call('HMGET', L .. tube, 'owner', 'tries', 'bound', 'until')
  if held[1] then
    found[#found + 1] = {tube, held[1], tonumber(held[2]), tonumber(held[3]), tonumber(held[4])}
  else
    redis.call('ZREM', L .. 'held', tube)
  end
end
return cjson.encode(found)
"""
)
"""prefix -> for each lease: tube, owner, tries, since when and until when, as JSON."""
