-- A book on paper, where all pages are one. An anchor stands once, and on something; a
-- heading has no link in it, since the table of contents makes it one; lines break; a
-- link to a page leads to its anchor, and pictures are as wide as their column.
local seen = {}

local function unnamed(head)
  head.identifier = ''
  return head
end

return {
  { Div = function(div)  -- the heading of a part, which nothing leads to
      if not div.classes:includes('quarto-book-part') then return nil end
      return div:walk { Header = unnamed }
    end },
  { Header = function(head)
      seen[head.identifier] = true
      return head:walk { Link = function(link) return link.content end }
    end },
  { RawInline = function(raw)
      if raw.format == 'html' and raw.text:match '^<br' then return pandoc.LineBreak() end
    end,
    Link = function(link)
      local page = link.target:match '^([%w_]+)%.ipynb$' or link.target:match '/([%w_]+)%.ipynb$'
      if page and not link.target:match '^%a+:' then link.target = '#page-' .. page end
      return link
    end,
    Table = function(rows)
      return rows:walk { Image = function(image)
        image.attributes.width = nil
        return image
      end }
    end },
  { Span = function(span)
      local name = span.identifier
      if name == '' or #span.content > 0 then return nil end
      if seen[name] then return {} end
      seen[name] = true
      return { pandoc.RawInline('typst', '#metadata(none)'), span }
    end },
}
